//! Joining over a wire: an invitation that is good for one newcomer and a short time.
//!
//! The inviting process holds the organisation's key and waits; the invitation is a text that
//! carries its address, the organisation's public key and a random secret. The newcomer proves
//! that it knows the secret (a keyed hash over its own public keys) and that it holds its key (a
//! signature), and gets its certificate. The wire needs no encryption: nothing secret travels,
//! whoever sits in between cannot put in keys of its own without the secret, and the newcomer
//! checks the certificate against the key in the invitation. When the process ends, by success or
//! time, so does the invitation.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mutual_node::auth::unix_now;
use mutual_node::config::BootstrapPeer;
use mutual_node::model::identity::{Certificate, NodeKey, PublicKey};
use mutual_node::model::time::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::request::{JoinRequest, REQUEST_BYTES_MAX};
use super::{Organisation, Terms};
use crate::failure::{Failure, Outcome};

const PREFIX: &str = "mutual-invitation-v1.";
/// Longest invitation text: addresses of a few peers and stores fit.
const INVITATION_BYTES_MAX: usize = 8 * 1024;
/// Longest line either side reads.
const LINE_BYTES_MAX: u64 = 32 * 1024;
/// How long one conversation may take.
const CONVERSATION: Duration = Duration::from_secs(10);
/// Wrong guesses after which the invitation is withdrawn. The secret has 256 bits; this only
/// bounds noise.
const WRONG_MAX: u32 = 100;

/// What the newcomer is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invitation {
    pub(crate) organisation: PublicKey,
    pub(crate) address: String,
    secret: String,
    pub(crate) expires: UnixMillis,
    #[serde(default)]
    pub(crate) bootstrap: Vec<BootstrapPeer>,
    #[serde(default)]
    pub(crate) stores: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Knock {
    request: JoinRequest,
    /// Keyed hash of the request's public keys under the invitation's secret.
    proof: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Reply {
    Certificate(Box<Certificate>),
    Refused(String),
}

fn proof(secret: &[u8; 32], request: &JoinRequest) -> blake3::Hash {
    let keys = [
        request.node.as_bytes().as_slice(),
        request.sealing.as_bytes(),
    ]
    .concat();
    blake3::keyed_hash(secret, &keys)
}

impl Invitation {
    /// The text to hand over. A secret until it is used.
    pub(crate) fn to_text(&self) -> Outcome<String> {
        let json = serde_json::to_vec(self).map_err(Failure::internal)?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json)))
    }

    /// Reads a text somebody handed over.
    pub(crate) fn from_text(text: &str) -> Outcome<Self> {
        let refused = |why: &dyn std::fmt::Display| {
            Failure::user(format!("no invitation: {why}"))
                .hint("paste the whole line that `mutual org invite` printed")
        };
        if text.len() > INVITATION_BYTES_MAX {
            return Err(refused(&"too long"));
        }
        let body = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or_else(|| refused(&format!("it does not start with {PREFIX}")))?;
        let json = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|error| refused(&error))?;
        serde_json::from_slice(&json).map_err(|error| refused(&error))
    }

    fn secret(&self) -> Outcome<[u8; 32]> {
        let mut secret = [0; 32];
        match hex::decode_to_slice(&self.secret, &mut secret) {
            Ok(()) => Ok(secret),
            Err(_) => Err(Failure::user("no invitation: its secret is damaged")),
        }
    }

    /// Asks for the certificate of `key` and checks it.
    pub(crate) async fn accept(&self, key: &NodeKey) -> Outcome<Certificate> {
        if unix_now() >= self.expires {
            return Err(Failure::user("the invitation has expired").hint("ask for a new one"));
        }
        let request = JoinRequest::new(self.organisation, key);
        let knock = Knock {
            proof: proof(&self.secret()?, &request).to_hex().to_string(),
            request,
        };
        let unreachable = |why: &dyn std::fmt::Display| {
            Failure::unavailable(format!("{}: {why}", self.address))
                .hint("`mutual org invite` must still be running there, and its port be open")
        };
        let conversation = tokio::time::timeout(CONVERSATION, self.converse(&knock)).await;
        let reply = conversation
            .map_err(|_| unreachable(&"no answer in time"))?
            .map_err(|error| unreachable(&error))?;
        match reply {
            Reply::Refused(why) => Err(Failure::user(format!("refused: {why}"))),
            Reply::Certificate(certificate) => self.check(*certificate, key),
        }
    }

    async fn converse(&self, knock: &Knock) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect(&self.address).await?;
        write_line(&mut stream, knock).await?;
        read_line(&mut stream).await
    }

    fn check(&self, certificate: Certificate, key: &NodeKey) -> Outcome<Certificate> {
        certificate
            .verify(&[self.organisation], unix_now())
            .map_err(|error| Failure::user(format!("the answer is not to be trusted: {error}")))?;
        if certificate.membership().node != key.public() {
            return Err(Failure::user(
                "the answer is a certificate for another node",
            ));
        }
        Ok(certificate)
    }
}

async fn write_line(stream: &mut TcpStream, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn read_line<T: serde::de::DeserializeOwned>(stream: &mut TcpStream) -> std::io::Result<T> {
    let mut line = Vec::new();
    let mut bounded = BufReader::new(stream).take(LINE_BYTES_MAX);
    bounded.read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

/// An open invitation: the port that waits for its newcomer.
#[derive(Debug)]
pub(crate) struct Host<'org> {
    organisation: &'org Organisation,
    listener: TcpListener,
    secret: [u8; 32],
    terms: Terms,
    until: tokio::time::Instant,
    /// What to hand over.
    pub(crate) invitation: Invitation,
}

impl<'org> Host<'org> {
    /// Opens the port. `advertised` is the host that newcomers reach this machine at.
    pub(crate) async fn open(
        organisation: &'org Organisation,
        listen: SocketAddr,
        advertised: Option<String>,
        terms: Terms,
        valid: Duration,
    ) -> Outcome<Self> {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            Failure::user(format!("{listen}: {error}")).hint("choose another --listen")
        })?;
        let address = listener.local_addr().map_err(Failure::internal)?;
        let host = advertised.unwrap_or_else(|| address.ip().to_string());
        let secret: [u8; 32] = rand::random();
        Ok(Self {
            organisation,
            listener,
            secret,
            terms,
            until: tokio::time::Instant::now() + valid,
            invitation: Invitation {
                organisation: organisation.file.key,
                address: format!("{host}:{}", address.port()),
                secret: hex::encode(secret),
                expires: unix_now().after(valid),
                bootstrap: organisation.file.bootstrap.clone(),
                stores: organisation.file.stores.clone(),
            },
        })
    }

    /// Waits for the one newcomer and gives it its certificate.
    pub(crate) async fn serve(self) -> Outcome<Certificate> {
        let expired = || Failure::user("nobody came: the invitation has expired");
        for _ in 0..WRONG_MAX {
            let accepted = tokio::time::timeout_at(self.until, self.listener.accept()).await;
            let (mut stream, _) = accepted
                .map_err(|_| expired())?
                .map_err(Failure::internal)?;
            let answer = tokio::time::timeout(CONVERSATION, self.answer(&mut stream)).await;
            if let Ok(Ok(Some(certificate))) = answer {
                return Ok(certificate);
            }
        }
        Err(Failure::user(format!(
            "{WRONG_MAX} strangers knocked: the invitation is withdrawn"
        ))
        .hint("invite anew, on another port"))
    }

    async fn answer(&self, stream: &mut TcpStream) -> std::io::Result<Option<Certificate>> {
        let knock: Knock = read_line(stream).await?;
        match self.admit(&knock) {
            Ok(certificate) => {
                write_line(stream, &Reply::Certificate(Box::new(certificate.clone()))).await?;
                Ok(Some(certificate))
            }
            Err(failure) => {
                write_line(stream, &Reply::Refused(failure.message)).await?;
                Ok(None)
            }
        }
    }

    fn admit(&self, knock: &Knock) -> Outcome<Certificate> {
        let bytes = serde_json::to_vec(&knock.request).map_err(Failure::internal)?;
        debug_assert!(
            bytes.len() <= REQUEST_BYTES_MAX,
            "requests have a fixed size"
        );
        let request = JoinRequest::verified(&bytes, &self.organisation.file.key)?;
        let claimed = blake3::Hash::from_hex(&knock.proof)
            .map_err(|_| Failure::user("the proof is malformed"))?;
        // `blake3::Hash` compares in constant time.
        if proof(&self.secret, &request) != claimed {
            return Err(Failure::user("the proof does not fit the invitation"));
        }
        self.organisation
            .certify(request.node, request.sealing, self.terms.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutual_node::model::identity::Role;

    fn terms() -> Terms {
        Terms {
            name: "newcomer".into(),
            namespaces: vec!["lab".parse().unwrap()],
            roles: vec![Role::Agent],
            valid: Duration::from_secs(3600),
        }
    }

    fn organisation(dir: &std::path::Path) -> Organisation {
        Organisation::create(dir, "lab", vec!["lab".parse().unwrap()]).unwrap()
    }

    #[tokio::test]
    async fn a_stranger_is_refused_and_the_invited_one_admitted_once() {
        let dir = tempfile::tempdir().unwrap();
        let organisation = organisation(dir.path());
        let listen = "127.0.0.1:0".parse().unwrap();
        let valid = Duration::from_secs(60);
        let host = Host::open(&organisation, listen, None, terms(), valid)
            .await
            .unwrap();
        let text = host.invitation.to_text().unwrap();
        let invitation = Invitation::from_text(&text).unwrap();
        let newcomer = NodeKey::from_seed(&[5; 32]);
        let guest = async {
            let mut guess = invitation.clone();
            guess.secret = "00".repeat(32);
            let refused = guess
                .accept(&NodeKey::from_seed(&[6; 32]))
                .await
                .unwrap_err();
            assert!(refused.message.contains("proof"), "{refused}");
            invitation.accept(&newcomer).await.unwrap()
        };
        let (given, got) = tokio::join!(host.serve(), guest);
        assert_eq!(given.unwrap(), got);
        assert_eq!(got.node_id(), newcomer.id());
        assert!(invitation.accept(&newcomer).await.is_err(), "used up");
    }

    #[tokio::test]
    async fn an_invitation_ends() {
        let dir = tempfile::tempdir().unwrap();
        let organisation = organisation(dir.path());
        let listen = "127.0.0.1:0".parse().unwrap();
        let host = Host::open(&organisation, listen, None, terms(), Duration::ZERO)
            .await
            .unwrap();
        let invitation = host.invitation.clone();
        assert!(host.serve().await.unwrap_err().message.contains("expired"));
        let late = invitation
            .accept(&NodeKey::from_seed(&[5; 32]))
            .await
            .unwrap_err();
        assert!(late.message.contains("expired"), "{late}");
    }

    #[test]
    fn other_texts_are_no_invitations() {
        for text in [
            "",
            "hello",
            "mutual-invitation-v1.",
            "mutual-invitation-v1.!!",
            "mutual-invitation-v1.e30",
        ] {
            assert!(Invitation::from_text(text).is_err(), "{text}");
        }
    }
}
