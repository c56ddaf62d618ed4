//! Who is who: node keys, organisations' membership certificates, and sealing to a node.
//!
//! A node is its Ed25519 key; its id is the BLAKE3 hash of the public half. An organisation's key
//! signs a [`Certificate`] for each member node. Every signature covers a context string, so that
//! a signature made for one purpose is worthless for another.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::bytes::fixed_bytes;
use crate::ids::Namespace;
use crate::time::UnixMillis;

fixed_bytes!(
    /// A node's id: the BLAKE3-256 hash of its public key. Also its place in the DHT.
    NodeId,
    32,
    "node id"
);
fixed_bytes!(
    /// An Ed25519 public key (RFC 8032).
    PublicKey,
    32,
    "public key"
);
fixed_bytes!(
    /// An X25519 public key (RFC 7748) that secrets are sealed to.
    SealingPublic,
    32,
    "sealing key"
);
fixed_bytes!(
    /// An Ed25519 signature (RFC 8032).
    Signature,
    64,
    "signature"
);

/// Why a signature, certificate or sealed secret was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The signature is not one of this key over these bytes.
    #[error("the signature does not verify")]
    Signature,
    /// The organisation that signed is not among the trusted ones.
    #[error("organisation {0} is not trusted here")]
    ForeignOrganisation(PublicKey),
    /// The certificate is not valid yet or no longer.
    #[error("the certificate is valid from {from} to {until} (unix ms), now is {now}")]
    Expired {
        /// First valid reading.
        from: u64,
        /// First reading at which it is no longer valid.
        until: u64,
        /// The reader's clock.
        now: u64,
    },
    /// A sealed secret is damaged or was sealed to another key or for another purpose.
    #[error("the sealed secret cannot be opened with this key")]
    Sealed,
    /// The bytes are no certificate.
    #[error("malformed certificate: {0}")]
    Malformed(String),
}

impl PublicKey {
    /// The id of the node with this key.
    pub fn node_id(&self) -> NodeId {
        NodeId(*blake3::hash(&self.0).as_bytes())
    }

    /// Checks `signature` over `message` made for `context`.
    ///
    /// # Errors
    /// [`IdentityError::Signature`], also for a key that is no curve point.
    pub fn verify(
        &self,
        context: &str,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), IdentityError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| IdentityError::Signature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&with_context(context, message), &signature)
            .map_err(|_| IdentityError::Signature)
    }
}

fn with_context(context: &str, message: &[u8]) -> Vec<u8> {
    debug_assert!(context.len() < 256, "contexts are short constants");
    let mut bytes = Vec::with_capacity(8 + context.len() + message.len());
    bytes.extend_from_slice(b"mutual\0");
    bytes.extend_from_slice(context.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(message);
    bytes
}

/// A node's or an organisation's secret key. One 32-byte seed gives the signing key and, through
/// HKDF (RFC 5869), the key that secrets are sealed to.
#[derive(Clone)]
pub struct NodeKey {
    signing: SigningKey,
    sealing: x25519_dalek::StaticSecret,
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({:?})", self.id())
    }
}

impl NodeKey {
    /// The key that a seed stands for.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let mut sealing = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, seed)
            .expand(b"mutual sealing key v1", sealing.as_mut())
            .expect("32 bytes is a valid HKDF-SHA256 length");
        Self {
            signing: SigningKey::from_bytes(seed),
            sealing: x25519_dalek::StaticSecret::from(*sealing),
        }
    }

    /// A new key from the caller's entropy.
    pub fn generate(entropy: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill_bytes(seed.as_mut());
        Self::from_seed(&seed)
    }

    /// The seed, to be kept in a file that only its owner can read.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    /// The id of the node with this key.
    pub fn id(&self) -> NodeId {
        self.public().node_id()
    }

    /// The key that others seal secrets to.
    pub fn sealing_public(&self) -> SealingPublic {
        SealingPublic(x25519_dalek::PublicKey::from(&self.sealing).to_bytes())
    }

    /// The X25519 secret, for protocols that agree on keys with it.
    pub fn sealing_secret(&self) -> &x25519_dalek::StaticSecret {
        &self.sealing
    }

    /// A secret that only this node and `other` can compute: X25519 (RFC 7748) between the
    /// Montgomery forms of their Ed25519 keys, so that a node's public key alone is enough to write
    /// to it and its id vouches for the channel. That one key may serve both purposes is shown by
    /// Thormarker 2021 (ePrint 2021/509). `None` for a key that is no point or of small order.
    pub fn agree(&self, other: &PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        let other = VerifyingKey::from_bytes(&other.0).ok()?;
        let other = x25519_dalek::PublicKey::from(other.to_montgomery().to_bytes());
        let scalar = Zeroizing::new(self.signing.to_scalar_bytes());
        let shared = x25519_dalek::StaticSecret::from(*scalar).diffie_hellman(&other);
        let contributory = shared.was_contributory();
        contributory.then(|| Zeroizing::new(shared.to_bytes()))
    }

    /// Signs `message` for `context`.
    pub fn sign(&self, context: &str, message: &[u8]) -> Signature {
        Signature(
            self.signing
                .sign(&with_context(context, message))
                .to_bytes(),
        )
    }

    /// Opens what was sealed to this key for `purpose`.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] for another key, purpose, or damaged bytes.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        seal::open(&self.sealing, purpose, sealed)
    }
}

impl SealingPublic {
    /// Seals `secret` so that only the holder of this key can open it for the same `purpose`
    /// (HPKE base mode, RFC 9180: X25519, HKDF-SHA256, AES-256-GCM).
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] if this is no usable X25519 key.
    pub fn seal(
        &self,
        purpose: &str,
        secret: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, IdentityError> {
        seal::seal(self, purpose, secret, entropy)
    }
}

mod seal {
    use hpke::aead::AesGcm256;
    use hpke::kdf::HkdfSha256;
    use hpke::kem::X25519HkdfSha256;
    use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};

    use super::{CryptoRng, IdentityError, SealingPublic, Zeroizing};

    type Public = <X25519HkdfSha256 as Kem>::PublicKey;
    type Secret = <X25519HkdfSha256 as Kem>::PrivateKey;
    type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

    /// Length of an encapsulated X25519 key, which precedes the ciphertext.
    const ENCAPSULATED_BYTES: usize = 32;

    fn refused(_: hpke::HpkeError) -> IdentityError {
        IdentityError::Sealed
    }

    pub(super) fn seal(
        to: &SealingPublic,
        purpose: &str,
        secret: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, IdentityError> {
        let to = Public::from_bytes(&to.0).map_err(refused)?;
        let (encapsulated, ciphertext) =
            hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &to,
                purpose.as_bytes(),
                secret,
                b"",
                entropy,
            )
            .map_err(refused)?;
        Ok([encapsulated.to_bytes().as_slice(), &ciphertext].concat())
    }

    pub(super) fn open(
        key: &x25519_dalek::StaticSecret,
        purpose: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let (encapsulated, ciphertext) = sealed
            .split_at_checked(ENCAPSULATED_BYTES)
            .ok_or(IdentityError::Sealed)?;
        let encapsulated = Encapsulated::from_bytes(encapsulated).map_err(refused)?;
        let key = Secret::from_bytes(key.as_bytes()).map_err(refused)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &key,
            &encapsulated,
            purpose.as_bytes(),
            ciphertext,
            b"",
        )
        .map(Zeroizing::new)
        .map_err(refused)
    }
}

/// What a member node may do for its organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Claims and runs tasks.
    Agent,
    /// Serves the REST interface.
    Control,
    /// Serves a demand store.
    Demand,
    /// Keeps and serves blocks.
    Seeder,
    /// Lets newcomers into the DHT.
    Bootstrap,
}

/// What an organisation's key says of one of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The organisation's key.
    pub organisation: PublicKey,
    /// The node's key.
    pub node: PublicKey,
    /// The node's key for sealed secrets.
    pub sealing: SealingPublic,
    /// A name for people, 1 to 63 characters.
    pub name: String,
    /// The namespaces it serves, at most 64.
    pub namespaces: Vec<Namespace>,
    /// What it may do.
    pub roles: Vec<Role>,
    /// First valid wall-clock reading.
    pub not_before: UnixMillis,
    /// First wall-clock reading at which it is no longer valid.
    pub not_after: UnixMillis,
}

/// A [`Membership`] signed by its organisation, kept with the exact bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    membership: Membership,
    body: Vec<u8>,
    signature: Signature,
}

const CERTIFICATE_CONTEXT: &str = "certificate v1";
/// Longest encoded certificate: 64 namespaces of 63 bytes and the fixed fields fit.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
const NAMESPACES_MAX: usize = 64;
const MEMBER_NAME_BYTES_MAX: usize = 63;

impl Certificate {
    /// Signs `membership` with the organisation's key, which it must name.
    ///
    /// # Errors
    /// [`IdentityError::ForeignOrganisation`] if `membership` names another organisation,
    /// [`IdentityError::Malformed`] if it is out of bounds.
    pub fn issue(organisation: &NodeKey, membership: Membership) -> Result<Self, IdentityError> {
        if membership.organisation != organisation.public() {
            return Err(IdentityError::ForeignOrganisation(membership.organisation));
        }
        check_membership(&membership)?;
        let mut body = Vec::new();
        ciborium::into_writer(&membership, &mut body)
            .map_err(|error| IdentityError::Malformed(error.to_string()))?;
        let signature = organisation.sign(CERTIFICATE_CONTEXT, &body);
        Ok(Self {
            membership,
            body,
            signature,
        })
    }

    /// What the organisation said. Believe it only after [`Certificate::verify`].
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The member's id.
    pub fn node_id(&self) -> NodeId {
        self.membership.node.node_id()
    }

    /// The BLAKE3 hash by which a certificate is named on the wire.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// The encoded form: signature, then the signed bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.signature.0.as_slice(), &self.body].concat()
    }

    /// Reads the encoded form. The result is well-formed but not yet trusted.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] for anything else, trailing bytes included.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let malformed = |what: &str| IdentityError::Malformed(what.to_owned());
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(malformed("longer than 8 KiB"));
        }
        let (signature, body) = bytes
            .split_first_chunk::<64>()
            .ok_or_else(|| malformed("shorter than a signature"))?;
        let mut rest = body;
        let membership: Membership = ciborium::from_reader(&mut rest)
            .map_err(|error| IdentityError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes after the end"));
        }
        check_membership(&membership)?;
        Ok(Self {
            membership,
            body: body.to_vec(),
            signature: Signature(*signature),
        })
    }

    /// Checks signature, validity and that the organisation is one of `trusted`.
    ///
    /// # Errors
    /// [`IdentityError::ForeignOrganisation`], [`IdentityError::Expired`] or
    /// [`IdentityError::Signature`].
    pub fn verify(&self, trusted: &[PublicKey], now: UnixMillis) -> Result<(), IdentityError> {
        let said = &self.membership;
        if !trusted.contains(&said.organisation) {
            return Err(IdentityError::ForeignOrganisation(said.organisation));
        }
        if now < said.not_before || now >= said.not_after {
            return Err(IdentityError::Expired {
                from: said.not_before.0,
                until: said.not_after.0,
                now: now.0,
            });
        }
        said.organisation
            .verify(CERTIFICATE_CONTEXT, &self.body, &self.signature)
    }
}

impl Serialize for Certificate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&hex::encode(self.to_bytes()))
        } else {
            serializer.serialize_bytes(&self.to_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for Certificate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Certificate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a certificate")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Certificate, E> {
                if text.len() > 2 * CERTIFICATE_BYTES_MAX {
                    return Err(E::invalid_length(text.len(), &self));
                }
                let bytes = hex::decode(text).map_err(E::custom)?;
                Certificate::from_bytes(&bytes).map_err(E::custom)
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Certificate, E> {
                Certificate::from_bytes(bytes).map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Bytes)
        } else {
            deserializer.deserialize_bytes(Bytes)
        }
    }
}

fn check_membership(membership: &Membership) -> Result<(), IdentityError> {
    let name_bytes = membership.name.len();
    if name_bytes == 0 || name_bytes > MEMBER_NAME_BYTES_MAX {
        return Err(IdentityError::Malformed(format!(
            "name must have 1 to {MEMBER_NAME_BYTES_MAX} bytes"
        )));
    }
    if membership.namespaces.len() > NAMESPACES_MAX {
        return Err(IdentityError::Malformed(format!(
            "more than {NAMESPACES_MAX} namespaces"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn entropy() -> rand_chacha::ChaCha20Rng {
        rand_chacha::ChaCha20Rng::seed_from_u64(7)
    }

    fn membership(organisation: &NodeKey, node: &NodeKey) -> Membership {
        Membership {
            organisation: organisation.public(),
            node: node.public(),
            sealing: node.sealing_public(),
            name: "agent-1".into(),
            namespaces: vec!["lab".parse().unwrap()],
            roles: vec![Role::Agent],
            not_before: UnixMillis(1_000),
            not_after: UnixMillis(2_000),
        }
    }

    #[test]
    fn certificates_are_believed_only_from_trusted_keys_and_in_time() {
        let mut entropy = entropy();
        let organisation = NodeKey::generate(&mut entropy);
        let node = NodeKey::generate(&mut entropy);
        let issued = Certificate::issue(&organisation, membership(&organisation, &node)).unwrap();
        let read = Certificate::from_bytes(&issued.to_bytes()).unwrap();
        let trusted = [organisation.public()];
        assert_eq!(read, issued);
        assert_eq!(read.verify(&trusted, UnixMillis(1_500)), Ok(()));
        assert!(matches!(
            read.verify(&trusted, UnixMillis(2_000)),
            Err(IdentityError::Expired { .. })
        ));
        assert!(matches!(
            read.verify(&[node.public()], UnixMillis(1_500)),
            Err(IdentityError::ForeignOrganisation(_))
        ));
        let mut forged = issued.to_bytes();
        *forged.last_mut().unwrap() ^= 1;
        let refused = Certificate::from_bytes(&forged)
            .and_then(|certificate| certificate.verify(&trusted, UnixMillis(1_500)));
        assert!(refused.is_err());
        let json = serde_json::to_string(&issued).unwrap();
        assert_eq!(serde_json::from_str::<Certificate>(&json).unwrap(), issued);
    }

    #[test]
    fn two_nodes_agree_on_a_secret_that_others_lack() {
        let [one, two, three] = [1, 2, 3].map(|seed| NodeKey::from_seed(&[seed; 32]));
        let shared = one.agree(&two.public()).unwrap();
        assert_eq!(*shared, *two.agree(&one.public()).unwrap());
        assert_ne!(*shared, *three.agree(&two.public()).unwrap());
        assert!(one.agree(&PublicKey([0; 32])).is_none());
    }

    #[test]
    fn signatures_are_bound_to_their_context() {
        let key = NodeKey::generate(&mut entropy());
        let signature = key.sign("a", b"message");
        assert_eq!(key.public().verify("a", b"message", &signature), Ok(()));
        assert!(key.public().verify("b", b"message", &signature).is_err());
    }

    #[test]
    fn sealed_secrets_open_only_for_their_key_and_purpose() {
        let mut entropy = entropy();
        let (holder, other) = (
            NodeKey::generate(&mut entropy),
            NodeKey::generate(&mut entropy),
        );
        let sealed = holder
            .sealing_public()
            .seal("input", b"secret", &mut entropy)
            .unwrap();
        assert_eq!(holder.open("input", &sealed).unwrap().as_slice(), b"secret");
        assert!(holder.open("result", &sealed).is_err());
        assert!(other.open("input", &sealed).is_err());
        assert!(holder.open("input", &sealed[..20]).is_err());
    }

    #[test]
    fn fuzz_certificate() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(certificate) = Certificate::from_bytes(bytes) {
                assert_eq!(certificate.to_bytes(), bytes);
            }
        });
    }
}
