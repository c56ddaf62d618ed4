//! Who is asking, and may they: credentials of nodes and users, log tokens and signed offers.
//!
//! Three parties prove themselves here, each in the way that suits it:
//!
//! * **Nodes** sign every HTTP request with their own key and show the certificate that their
//!   organisation gave them ([`NodeSigner`]). Nothing that could be stolen and used again travels.
//! * **Users** carry a Biscuit token signed by their organisation ([`UserToken`]). They can weaken
//!   it offline (fewer namespaces, fewer rights, an earlier end) before they hand it to a script.
//! * **Whoever may read a job** gets a [`LogToken`] for the agent that runs it, good for a minute.
//!
//! [`Gate`] turns the first two into the [`Principal`](mutual_demand::Principal) that stores trust.
//! An organisation has one Ed25519 key for certificates and tokens: the signed bytes of the two
//! never coincide (certificates start with `mutual\0`, Biscuit blocks with a protobuf tag that no
//! letter is, or with `\0BLOCK`), so one public key per organisation is all a node must trust.
//!
//! **Absent on purpose:** evaluation of foreign Datalog. A token may hold any program its bearer
//! appended; instead of running it under limits we accept the few forms of check that
//! [`UserToken::attenuate`] writes and refuse every other block. The cost of a hostile token is
//! bounded by its length.

mod caveat;
mod envelope;
mod gate;
mod log_token;
mod node_header;
mod offer;
mod replay;
mod user_token;

use std::time::{SystemTime, UNIX_EPOCH};

use mutual_demand::Right;
use mutual_model::identity::{IdentityError, Role};
use mutual_model::time::{UnixMillis, millis};

pub use envelope::EnvelopeError;
pub use gate::{Gate, principal_of};
pub use log_token::{LOG_TOKEN_LIFETIME, LogToken};
pub use node_header::{NODE_SCHEME, NodeSigner, REQUEST_SKEW};
pub use offer::{JobOffer, JobOfferReply, OFFERING_ROLES, OfferVoucher};
pub use user_token::{
    Attenuation, TOKEN_BYTES_MAX, TokenError, UserGrant, UserToken, VerifiedUser,
};

/// Why a credential was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request carries no `authorization` header.
    #[error(
        "no credential: send an `authorization` header with a user's token or a node's signature"
    )]
    Missing,
    /// The header is neither `Bearer …` nor `Mutual-Node …`, or cannot be read.
    #[error("malformed credential: {0}")]
    Malformed(String),
    /// The user's token was not accepted.
    #[error("token: {0}")]
    Token(#[from] TokenError),
    /// The node's certificate or signature was not accepted.
    #[error("node credential: {0}")]
    Node(#[from] IdentityError),
    /// The request was signed too long ago or too far in the future by this machine's clock.
    #[error(
        "the request was signed {skew_ms} ms away from this machine's clock, at most {most_ms} ms are allowed: set both clocks"
    )]
    Skew {
        /// Distance between the two clocks, in milliseconds.
        skew_ms: u64,
        /// Longest allowed distance, in milliseconds.
        most_ms: u64,
    },
    /// The same signed request was seen before, or is older than what is remembered.
    #[error("replayed request: sign each request anew")]
    Replayed,
}

impl AuthError {
    /// A short, stable word for programs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "credential_missing",
            Self::Malformed(_) => "credential_malformed",
            Self::Token(TokenError::Expired { .. }) | Self::Node(IdentityError::Expired { .. }) => {
                "credential_expired"
            }
            Self::Token(TokenError::Foreign)
            | Self::Node(IdentityError::ForeignOrganisation(_)) => "credential_foreign",
            Self::Token(_) | Self::Node(_) => "credential_invalid",
            Self::Skew { .. } => "clock_skew",
            Self::Replayed => "replayed",
        }
    }
}

/// What the roles in a node's certificate let it do with a demand store.
///
/// The union over its roles, in a fixed order; every member may read.
pub fn rights_of(roles: &[Role]) -> Vec<Right> {
    let granted = |role: &Role| -> &'static [Right] {
        match role {
            Role::Agent => &[Right::Read, Right::Work, Right::Guard],
            Role::Control => &[Right::Read, Right::Operate],
            Role::Demand => &[Right::Read, Right::Work, Right::Guard, Right::Operate],
            Role::Seeder | Role::Bootstrap => &[Right::Read],
        }
    };
    let mut rights: Vec<Right> = roles.iter().flat_map(granted).copied().collect();
    rights.push(Right::Read);
    rights.sort_unstable();
    rights.dedup();
    rights
}

/// This machine's wall clock.
pub fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_give_the_rights_of_the_contract() {
        use Right::{Guard, Operate, Read, Work};
        let cases: [(&[Role], &[Right]); 6] = [
            (&[], &[Read]),
            (&[Role::Agent], &[Read, Work, Guard]),
            (&[Role::Control], &[Read, Operate]),
            (&[Role::Demand], &[Read, Work, Guard, Operate]),
            (&[Role::Seeder, Role::Bootstrap], &[Read]),
            (&[Role::Control, Role::Agent], &[Read, Work, Guard, Operate]),
        ];
        for (roles, rights) in cases {
            assert_eq!(rights_of(roles), rights, "{roles:?}");
        }
    }
}
