//! Nodes' signed requests at the gate.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use mutual_demand::{Principal, Right};
use mutual_model::identity::{IdentityError, Role};
use mutual_model::time::UnixMillis;
use mutual_node::auth::{AuthError, Gate, NodeSigner, REQUEST_SKEW, unix_now};

use super::fixture::{NOW, Organisation, names};

fn headers(value: &HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, value.clone())])
}

fn ask(gate: &Gate, value: &HeaderValue, path: &str, body: &[u8]) -> Result<Principal, AuthError> {
    gate.check(&Method::POST, path, &headers(value), body)
}

fn agent() -> (Organisation, NodeSigner) {
    let organisation = Organisation::at(1, unix_now());
    let agent = organisation.node(2, &["lab"], &[Role::Agent]);
    (organisation, agent)
}

#[test]
fn a_signed_request_makes_its_node_a_principal_once() {
    let (organisation, agent) = agent();
    let gate = organisation.gate();
    let value = agent.authorization(&Method::POST, "/try-claim?x=1", b"{}");
    let who = ask(&gate, &value, "/try-claim?x=1", b"{}").unwrap();
    assert_eq!(who.node, Some(agent.key().id()));
    assert_eq!(who.namespaces, names(&["lab"]));
    assert_eq!(who.rights, [Right::Read, Right::Work, Right::Guard]);
    assert_eq!(who.sealing, agent.key().sealing_public());
    let again = ask(&gate, &value, "/try-claim?x=1", b"{}");
    assert_eq!(again.unwrap_err(), AuthError::Replayed);
    let anew = agent.authorization(&Method::POST, "/try-claim?x=1", b"{}");
    assert!(ask(&gate, &anew, "/try-claim?x=1", b"{}").is_ok());
}

#[test]
fn nothing_that_was_signed_can_be_changed() {
    let (organisation, agent) = agent();
    let gate = organisation.gate();
    let value = agent.authorization(&Method::POST, "/renew", b"{}");
    let forged = AuthError::Node(IdentityError::Signature);
    assert_eq!(ask(&gate, &value, "/renew?x", b"{}").unwrap_err(), forged);
    assert_eq!(ask(&gate, &value, "/renew", b"{} ").unwrap_err(), forged);
    let other_method = gate.check(&Method::GET, "/renew", &headers(&value), b"{}");
    assert_eq!(other_method.unwrap_err(), forged);
    assert!(ask(&gate, &value, "/renew", b"{}").is_ok());
}

#[test]
fn clocks_may_differ_a_little() {
    let (organisation, agent) = agent();
    let gate = organisation.gate();
    let signed_at = unix_now();
    let slack = Duration::from_secs(30);
    let cases = [
        (signed_at.after(REQUEST_SKEW - slack), true),
        (signed_at.after(REQUEST_SKEW + slack), false),
        (UnixMillis(signed_at.0 - 270_000), true),
        (UnixMillis(signed_at.0 - 330_000), false),
    ];
    for (now, is_good) in cases {
        let value = agent.authorization(&Method::POST, "/", b"");
        let checked = gate.check_at(&Method::POST, "/", &headers(&value), b"", now);
        match checked {
            Ok(_) => assert!(is_good, "{now:?}"),
            Err(error) => {
                assert!(!is_good, "{now:?}");
                assert_eq!(error.code(), "clock_skew");
            }
        }
    }
}

#[test]
fn certificates_must_be_trusted_and_in_time() {
    let (organisation, agent) = agent();
    let value = agent.authorization(&Method::POST, "/", b"");
    let foreign = Organisation::new(9).gate();
    assert_eq!(
        ask(&foreign, &value, "/", b"").unwrap_err().code(),
        "credential_foreign"
    );
    let old = Organisation::at(1, NOW).node(2, &["lab"], &[Role::Agent]);
    let value = old.authorization(&Method::POST, "/", b"");
    let expired = ask(&organisation.gate(), &value, "/", b"").unwrap_err();
    assert_eq!(expired.code(), "credential_expired");
}

#[test]
fn a_signer_needs_its_own_certificate() {
    let (organisation, agent) = agent();
    let other = organisation.node(3, &["lab"], &[Role::Agent]);
    let mixed = NodeSigner::new(other.key().clone(), agent.certificate().clone());
    assert_eq!(mixed.unwrap_err().code(), "credential_malformed");
}

#[test]
fn malformed_headers_are_told_apart() {
    let gate = Organisation::new(1).gate();
    let missing = gate.check(&Method::GET, "/", &HeaderMap::new(), b"");
    assert_eq!(missing.unwrap_err(), AuthError::Missing);
    for text in [
        "",
        "Bearer",
        "Basic YTpi",
        "Mutual-Node !",
        "Mutual-Node AAAA",
        "Bearer a b",
    ] {
        let value = HeaderValue::from_str(text).unwrap();
        let refused = ask(&gate, &value, "/", b"").unwrap_err();
        let code = refused.code();
        assert!(
            matches!(code, "credential_malformed" | "credential_invalid"),
            "{text}: {code}"
        );
    }
    let not_ascii = HeaderValue::from_bytes(b"Bearer \xff").unwrap();
    assert_eq!(
        ask(&gate, &not_ascii, "/", b"").unwrap_err().code(),
        "credential_malformed"
    );
    let mut twice = HeaderMap::new();
    twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
    twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
    let refused = gate.check(&Method::GET, "/", &twice, b"").unwrap_err();
    assert_eq!(refused.code(), "credential_malformed");
}

#[test]
fn users_pass_the_same_gate() {
    let organisation = Organisation::at(1, unix_now());
    let gate = organisation.gate();
    let token = organisation.user(&["lab"], &[Right::Read]);
    let value = HeaderValue::from_str(&format!("Bearer {}", token.as_str())).unwrap();
    for _ in 0..2 {
        let who = ask(&gate, &value, "/jobs", b"").unwrap();
        assert_eq!((who.subject.as_str(), who.node), ("ada@lab", None));
    }
    let late = unix_now().after(Duration::from_secs(7_200));
    let expired = gate.check_at(&Method::GET, "/", &headers(&value), b"", late);
    assert_eq!(expired.unwrap_err().code(), "credential_expired");
}
