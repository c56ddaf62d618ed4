//! A user's credential: a Biscuit signed by an organisation, which its bearer can weaken offline.
//!
//! The first block says who the bearer is, where secrets for it are sealed to, which namespaces
//! and rights it has, and when that ends. Each further block only takes away. Verification checks
//! the chain of signatures (Biscuit specification, version 2) and reads the blocks by form; see
//! the parent module for why no Datalog is run.

use std::fmt;

use axum::http::{HeaderValue, Method};
use biscuit_auth::builder::{Algorithm, BiscuitBuilder, BlockBuilder};
use biscuit_auth::{Biscuit, KeyPair, PrivateKey, UnverifiedBiscuit};
use mutual_demand::http::Credentials;
use mutual_demand::{Principal, Right};
use mutual_model::identity::{NodeKey, PublicKey, SealingPublic};
use mutual_model::ids::Namespace;
use mutual_model::time::UnixMillis;

use super::caveat::{Caveat, Claim, Line, is_subject, parse_block, right_name};

/// Longest token text. A first block with 16 namespaces and a few further blocks fit easily.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Most blocks of a token, the first included.
const BLOCKS_MAX: usize = 8;
/// Most namespaces of one user's token.
const NAMESPACES_MAX: usize = 16;

/// Why a token was not made or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`], or with more blocks than a token needs.
    #[error(
        "the token is longer than {TOKEN_BYTES_MAX} bytes or has more than {BLOCKS_MAX} blocks"
    )]
    TooLong,
    /// No Biscuit, or signatures that do not verify.
    #[error("the token is damaged or forged")]
    Damaged,
    /// Not signed by an organisation that is trusted here.
    #[error("the token is not from an organisation that is trusted here")]
    Foreign,
    /// Past its end.
    #[error("the token expired {late_ms} ms ago: ask your organisation for a new one")]
    Expired {
        /// How long ago, in milliseconds.
        late_ms: u64,
    },
    /// A block holds something other than what `attenuate` writes.
    #[error("the token holds a sentence that is not understood here: {0}")]
    UnknownSentence(String),
    /// The first block lacks the named fact, or has it twice.
    #[error("the token must name exactly one {0}")]
    Incomplete(&'static str),
    /// A date outside what a token can hold.
    #[error("the end of the token is no date")]
    Date,
    /// The subject is no valid name.
    #[error("a subject has 1 to 63 letters, digits and . _ - @ +")]
    Subject,
    /// No namespace or too many.
    #[error("a token names 1 to {NAMESPACES_MAX} namespaces")]
    Namespaces,
}

/// What an organisation grants a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserGrant {
    /// Name of the user: 1 to 63 letters, digits and `. _ - @ +`.
    pub subject: String,
    /// Where secrets for the user (keys of results) are sealed to.
    pub sealing: SealingPublic,
    /// 1 to 16 namespaces.
    pub namespaces: Vec<Namespace>,
    /// Rights in all of them.
    pub rights: Vec<Right>,
    /// When it ends; kept in whole seconds.
    pub expires: UnixMillis,
}

/// What to take away from a token. `None` leaves that side as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attenuation {
    /// Keep only these namespaces.
    pub namespaces: Option<Vec<Namespace>>,
    /// Keep only these rights.
    pub rights: Option<Vec<Right>>,
    /// End no later than this.
    pub expires: Option<UnixMillis>,
}

/// What a verified token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedUser {
    /// The bearer, as stores see it. Its rights may be none.
    pub principal: Principal,
    /// First instant at which it is no longer valid.
    pub expires: UnixMillis,
    /// Who signed it.
    pub organisation: PublicKey,
}

/// A token's text. A secret: whoever has it may use it until it ends.
#[derive(Clone, PartialEq, Eq)]
pub struct UserToken(String);

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserToken(…)")
    }
}

impl UserToken {
    /// Makes a token with the organisation's key.
    ///
    /// # Errors
    /// [`TokenError::Subject`], [`TokenError::Namespaces`] or [`TokenError::Date`] for a grant out
    /// of bounds, [`TokenError::TooLong`].
    pub fn mint(organisation: &NodeKey, grant: &UserGrant) -> Result<Self, TokenError> {
        check_grant(grant)?;
        let root = key_pair(organisation)?;
        let mut builder = BiscuitBuilder::new().root_key_id(key_id(&organisation.public()));
        for claim in claims_of(grant) {
            builder = builder.fact(claim.to_source().as_str()).map_err(damaged)?;
        }
        let end = Caveat::Before(grant.expires).to_source()?;
        let token = builder
            .check(end.as_str())
            .and_then(|builder| builder.build(&root));
        Self::bounded(token.and_then(|token| token.to_base64()).map_err(damaged)?)
    }

    /// Takes a token's text, unverified.
    ///
    /// # Errors
    /// [`TokenError::TooLong`], or [`TokenError::Damaged`] for characters no token has.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let is_base64 = |c: char| c.is_ascii_alphanumeric() || "-_=".contains(c);
        if text.is_empty() || !text.chars().all(is_base64) {
            return Err(TokenError::Damaged);
        }
        Self::bounded(text.to_owned())
    }

    fn bounded(text: String) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        Ok(Self(text))
    }

    /// The text, for an `authorization: Bearer …` header or a file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A weaker token, made without asking anyone.
    ///
    /// # Errors
    /// [`TokenError::Namespaces`] for an empty list of namespaces, [`TokenError::Damaged`] if this
    /// is no token or is sealed against further blocks, [`TokenError::TooLong`].
    pub fn attenuate(&self, less: &Attenuation) -> Result<Self, TokenError> {
        if less
            .namespaces
            .as_ref()
            .is_some_and(|names| names.is_empty() || names.len() > NAMESPACES_MAX)
        {
            return Err(TokenError::Namespaces);
        }
        let caveats = [
            less.expires.map(Caveat::Before),
            less.namespaces.clone().map(Caveat::Namespaces),
            less.rights.clone().map(Caveat::Rights),
        ];
        let mut block = BlockBuilder::new();
        for caveat in caveats.into_iter().flatten() {
            block = block.check(caveat.to_source()?.as_str()).map_err(damaged)?;
        }
        let token = UnverifiedBiscuit::from_base64(&self.0).map_err(damaged)?;
        let weaker = token.append(block).map_err(damaged)?;
        Self::bounded(weaker.to_base64().map_err(damaged)?)
    }

    /// Checks signatures and time and says what the token stands for.
    ///
    /// # Errors
    /// Any [`TokenError`] but the ones for making tokens.
    pub fn verify(
        &self,
        trusted: &[PublicKey],
        now: UnixMillis,
    ) -> Result<VerifiedUser, TokenError> {
        let unverified = UnverifiedBiscuit::from_base64(&self.0).map_err(damaged)?;
        let organisation = signer(&unverified, trusted)?;
        let root = biscuit_auth::PublicKey::from_bytes(&organisation.0, Algorithm::Ed25519)
            .map_err(|_| TokenError::Foreign)?;
        let token = unverified.verify(root).map_err(|_| TokenError::Damaged)?;
        let grant = effective(&token)?;
        if now >= grant.expires {
            let late_ms = now.0 - grant.expires.0;
            return Err(TokenError::Expired { late_ms });
        }
        Ok(VerifiedUser {
            expires: grant.expires,
            organisation,
            principal: Principal {
                subject: grant.subject,
                node: None,
                sealing: grant.sealing,
                namespaces: grant.namespaces,
                rights: grant.rights,
            },
        })
    }

    /// What the token says, for its own bearer to look at. Signatures are NOT checked.
    ///
    /// # Errors
    /// [`TokenError::Damaged`] or [`TokenError::UnknownSentence`].
    pub fn inspect(&self) -> Result<UserGrant, TokenError> {
        let token = UnverifiedBiscuit::from_base64(&self.0).map_err(damaged)?;
        let sources = (0..token.block_count()).map(|index| token.print_block_source(index));
        grant_from(sources)
    }
}

impl Credentials for UserToken {
    fn authorize(&self, _: &Method, _: &str, _: &[u8]) -> HeaderValue {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0))
            .expect("a token holds only letters, digits, - _ and =");
        value.set_sensitive(true);
        value
    }
}

fn damaged<E>(_: E) -> TokenError {
    TokenError::Damaged
}

fn check_grant(grant: &UserGrant) -> Result<(), TokenError> {
    if !is_subject(&grant.subject) {
        return Err(TokenError::Subject);
    }
    if !(1..=NAMESPACES_MAX).contains(&grant.namespaces.len()) {
        return Err(TokenError::Namespaces);
    }
    Ok(())
}

fn claims_of(grant: &UserGrant) -> Vec<Claim> {
    let mut claims = vec![
        Claim::User(grant.subject.clone()),
        Claim::Sealing(grant.sealing),
    ];
    claims.extend(grant.namespaces.iter().cloned().map(Claim::Namespace));
    claims.extend(grant.rights.iter().copied().map(Claim::Right));
    claims
}

/// The organisation's key in the form that the Biscuit library takes.
fn key_pair(organisation: &NodeKey) -> Result<KeyPair, TokenError> {
    let seed = organisation.seed();
    let private = PrivateKey::from_bytes(seed.as_ref(), Algorithm::Ed25519).map_err(damaged)?;
    Ok(KeyPair::from(&private))
}

/// A hint in the token at the key that signed it: the key's first four bytes.
fn key_id(key: &PublicKey) -> u32 {
    let [a, b, c, d, ..] = key.0;
    u32::from_be_bytes([a, b, c, d])
}

fn signer(token: &UnverifiedBiscuit, trusted: &[PublicKey]) -> Result<PublicKey, TokenError> {
    if token.block_count() > BLOCKS_MAX {
        return Err(TokenError::TooLong);
    }
    let wanted = token.root_key_id().ok_or(TokenError::Foreign)?;
    let known = trusted.iter().find(|key| key_id(key) == wanted);
    known.copied().ok_or(TokenError::Foreign)
}

fn effective(token: &Biscuit) -> Result<UserGrant, TokenError> {
    let is_foreign = token.external_public_keys().iter().any(Option::is_some);
    if is_foreign {
        return Err(TokenError::UnknownSentence(
            "a block signed by a third party".into(),
        ));
    }
    grant_from((0..token.block_count()).map(|index| token.print_block_source(index)))
}

type Source = Result<String, biscuit_auth::error::Token>;

fn grant_from(sources: impl Iterator<Item = Source>) -> Result<UserGrant, TokenError> {
    let (mut claims, mut caveats) = (Vec::new(), Vec::new());
    for (index, source) in sources.enumerate() {
        for line in parse_block(&source.map_err(damaged)?)? {
            match line {
                Line::Caveat(caveat) => caveats.push(caveat),
                Line::Claim(claim) if index == 0 => claims.push(claim),
                Line::Claim(claim) => return Err(TokenError::UnknownSentence(claim.to_source())),
            }
        }
    }
    let mut grant = stated(claims, &caveats)?;
    for caveat in &caveats {
        narrow(&mut grant, caveat);
    }
    Ok(grant)
}

fn stated(claims: Vec<Claim>, caveats: &[Caveat]) -> Result<UserGrant, TokenError> {
    let (mut subjects, mut keys) = (Vec::new(), Vec::new());
    let (mut namespaces, mut rights) = (Vec::new(), Vec::new());
    for claim in claims {
        match claim {
            Claim::User(subject) => subjects.push(subject),
            Claim::Sealing(key) => keys.push(key),
            Claim::Namespace(name) => namespaces.push(name),
            Claim::Right(right) => rights.push(right),
        }
    }
    let end = |caveat: &Caveat| match caveat {
        Caveat::Before(end) => Some(*end),
        Caveat::Namespaces(_) | Caveat::Rights(_) => None,
    };
    let [subject] =
        <[String; 1]>::try_from(subjects).map_err(|_| TokenError::Incomplete("user"))?;
    let [sealing] =
        <[SealingPublic; 1]>::try_from(keys).map_err(|_| TokenError::Incomplete("sealing key"))?;
    let expires = caveats.iter().filter_map(end).min();
    Ok(UserGrant {
        subject,
        sealing,
        namespaces,
        rights,
        expires: expires.ok_or(TokenError::Incomplete("end"))?,
    })
}

fn narrow(grant: &mut UserGrant, caveat: &Caveat) {
    match caveat {
        // The earliest end was taken already.
        Caveat::Before(_) => {}
        Caveat::Namespaces(only) => grant.namespaces.retain(|name| only.contains(name)),
        Caveat::Rights(only) => grant.rights.retain(|right| only.contains(right)),
    }
}

impl fmt::Display for UserGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.namespaces.iter().map(Namespace::as_str).collect();
        let rights: Vec<&str> = self.rights.iter().map(|right| right_name(*right)).collect();
        write!(
            f,
            "{} may {} in {}",
            self.subject,
            rights.join(", "),
            names.join(", ")
        )
    }
}
