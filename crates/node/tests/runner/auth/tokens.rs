//! Users' tokens: minting, weakening offline, and every way to cheat.

use biscuit_auth::builder::{Algorithm, AuthorizerBuilder, BiscuitBuilder, BlockBuilder};
use biscuit_auth::{AuthorizerLimits, Biscuit, KeyPair, PrivateKey, UnverifiedBiscuit};
use mutual_demand::Right;
use mutual_model::time::UnixMillis;
use mutual_node::auth::{Attenuation, TOKEN_BYTES_MAX, TokenError, UserGrant, UserToken};

use super::fixture::{NOW, Organisation, names};

const READ_SUBMIT: [Right; 2] = [Right::Read, Right::Submit];

#[test]
fn a_token_stands_for_what_was_granted() {
    let organisation = Organisation::new(1);
    let token = organisation.user(&["lab", "team-2"], &READ_SUBMIT);
    let user = token.verify(&[organisation.key.public()], NOW).unwrap();
    assert_eq!(user.principal.subject, "ada@lab");
    assert_eq!(user.principal.node, None);
    assert_eq!(user.principal.namespaces, names(&["lab", "team-2"]));
    assert_eq!(user.principal.rights, READ_SUBMIT);
    assert_eq!(user.organisation, organisation.key.public());
    let grant = organisation.grant(&["lab", "team-2"], &READ_SUBMIT);
    assert_eq!(token.inspect().unwrap(), grant);
}

#[test]
fn time_and_trust_are_checked() {
    let organisation = Organisation::new(1);
    let token = organisation.user(&["lab"], &READ_SUBMIT);
    let trusted = [organisation.key.public()];
    let end = organisation.grant(&["lab"], &[]).expires;
    assert!(token.verify(&trusted, UnixMillis(end.0 - 1)).is_ok());
    let expired = TokenError::Expired { late_ms: 0 };
    assert_eq!(token.verify(&trusted, end).unwrap_err(), expired);
    let foreign = [Organisation::new(2).key.public()];
    assert_eq!(
        token.verify(&foreign, NOW).unwrap_err(),
        TokenError::Foreign
    );
    assert_eq!(token.verify(&[], NOW).unwrap_err(), TokenError::Foreign);
}

#[track_caller]
fn check(less: &Attenuation, namespaces: &[&str], rights: &[Right], expires: UnixMillis) {
    let organisation = Organisation::new(1);
    let token = organisation.user(&["lab", "team-2"], &READ_SUBMIT);
    let weaker = token.attenuate(less).unwrap();
    let user = weaker.verify(&[organisation.key.public()], NOW).unwrap();
    assert_eq!(user.principal.namespaces, names(namespaces));
    assert_eq!(user.principal.rights, rights);
    assert_eq!(user.expires, expires);
}

#[test]
fn attenuation_only_takes_away() {
    let end = Organisation::new(1).grant(&["lab"], &[]).expires;
    let none = Attenuation::default();
    check(&none, &["lab", "team-2"], &READ_SUBMIT, end);
    let one = Attenuation {
        namespaces: Some(names(&["lab"])),
        ..Attenuation::default()
    };
    check(&one, &["lab"], &READ_SUBMIT, end);
    let foreign = Attenuation {
        namespaces: Some(names(&["lab", "elsewhere"])),
        rights: Some(vec![Right::Read, Right::Operate]),
        expires: Some(UnixMillis(end.0 + 5_000)),
    };
    check(&foreign, &["lab"], &[Right::Read], end);
    let early = Attenuation {
        rights: Some(vec![]),
        expires: Some(NOW.after(std::time::Duration::from_secs(9))),
        ..Attenuation::default()
    };
    check(&early, &["lab", "team-2"], &[], UnixMillis(NOW.0 + 9_000));
}

#[test]
fn attenuations_add_up_and_cannot_be_undone() {
    let organisation = Organisation::new(1);
    let read = Attenuation {
        rights: Some(vec![Right::Read]),
        ..Attenuation::default()
    };
    let all = Attenuation {
        rights: Some(vec![Right::Read, Right::Submit]),
        ..Attenuation::default()
    };
    let token = organisation.user(&["lab"], &READ_SUBMIT);
    let twice = token.attenuate(&read).unwrap().attenuate(&all).unwrap();
    let user = twice.verify(&[organisation.key.public()], NOW).unwrap();
    assert_eq!(user.principal.rights, [Right::Read]);
}

#[test]
fn what_attenuate_would_not_write_is_refused() {
    let organisation = Organisation::new(1);
    let token = organisation.user(&["lab"], &[Right::Read]);
    for source in [
        "right(\"operate\")",
        "namespace(\"other\")",
        "right(\"operate\") <- user($u)",
        "check if true",
        "check if right($a), right($b), right($c), right($d), right($e), right($f)",
        "check if user($u), $u.matches(\"(a{1000}){1000}\")",
        "reject if operation(\"read\")",
        "check if operation($right), {\"read\"}.contains($right) or true",
    ] {
        let forged = append(&token, BlockBuilder::new().code(source).unwrap());
        let refused = forged
            .verify(&[organisation.key.public()], NOW)
            .unwrap_err();
        assert!(
            matches!(refused, TokenError::UnknownSentence(_)),
            "{source}: {refused}"
        );
    }
}

fn append(token: &UserToken, block: BlockBuilder) -> UserToken {
    let token = UnverifiedBiscuit::from_base64(token.as_str()).unwrap();
    let longer = token.append(block).unwrap().to_base64().unwrap();
    UserToken::from_text(&longer).unwrap()
}

#[test]
fn a_token_of_ones_own_making_is_damaged_or_foreign() {
    let organisation = Organisation::new(1);
    let trusted = [organisation.key.public()];
    let [a, b, c, d, ..] = trusted[0].0;
    let builder = BiscuitBuilder::new().root_key_id(u32::from_be_bytes([a, b, c, d]));
    let own = builder.build(&KeyPair::new()).unwrap().to_base64().unwrap();
    let own = UserToken::from_text(&own).unwrap();
    assert_eq!(own.verify(&trusted, NOW).unwrap_err(), TokenError::Damaged);
    let good = organisation.user(&["lab"], &READ_SUBMIT);
    let text = good.as_str().as_bytes();
    for index in (0..text.len()).step_by(7) {
        let mut changed = text.to_vec();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let changed = UserToken::from_text(&String::from_utf8(changed).unwrap()).unwrap();
        let same = |user: Result<_, _>| user == good.verify(&trusted, NOW);
        let verified = changed.verify(&trusted, NOW);
        assert!(verified.is_err() || same(verified), "byte {index}");
    }
}

#[test]
fn tokens_are_bounded() {
    let long = "A".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(
        UserToken::from_text(&long).unwrap_err(),
        TokenError::TooLong
    );
    for text in ["", "a b", "é", "a\n"] {
        assert_eq!(UserToken::from_text(text).unwrap_err(), TokenError::Damaged);
    }
    let organisation = Organisation::new(1);
    let mut token = organisation.user(&["lab"], &[Right::Read]);
    for _ in 0..8 {
        token = append(&token, BlockBuilder::new());
    }
    let refused = token.verify(&[organisation.key.public()], NOW).unwrap_err();
    assert_eq!(refused, TokenError::TooLong);
}

#[test]
fn grants_out_of_bounds_are_not_minted() {
    let organisation = Organisation::new(1);
    let good = organisation.grant(&["lab"], &[Right::Read]);
    let mint = |grant: UserGrant| UserToken::mint(&organisation.key, &grant).unwrap_err();
    for subject in ["", "a b", "a\"", "x;y", &"x".repeat(64)] {
        let grant = UserGrant {
            subject: subject.into(),
            ..good.clone()
        };
        assert_eq!(mint(grant), TokenError::Subject, "{subject}");
    }
    let nowhere = UserGrant {
        namespaces: vec![],
        ..good.clone()
    };
    assert_eq!(mint(nowhere), TokenError::Namespaces);
    let eternal = UserGrant {
        expires: UnixMillis(u64::MAX),
        ..good
    };
    assert_eq!(mint(eternal), TokenError::Date);
}

/// The Biscuit library's own verdict on one operation in one namespace.
fn biscuit_allows(token: &Biscuit, namespace: &str, right: &str) -> bool {
    let seconds = NOW.0 / 1_000;
    let now = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
    let source = format!(
        "time({now}); resource_namespace(\"{namespace}\"); operation(\"{right}\");
         allow if namespace(\"{namespace}\"), right(\"{right}\");"
    );
    let limits = AuthorizerLimits {
        max_time: std::time::Duration::from_secs(10),
        ..AuthorizerLimits::default()
    };
    let builder = AuthorizerBuilder::new()
        .code(source)
        .unwrap()
        .set_limits(limits);
    builder.build(token).unwrap().authorize().is_ok()
}

#[test]
fn reading_by_form_agrees_with_running_the_datalog() {
    let organisation = Organisation::new(1);
    let root =
        biscuit_auth::PublicKey::from_bytes(&organisation.key.public().0, Algorithm::Ed25519);
    let root = root.unwrap();
    let token = organisation.user(&["a", "b"], &[Right::Read, Right::Submit, Right::Operate]);
    for number in 0..32_u32 {
        let less = Attenuation {
            namespaces: (number & 1 != 0).then(|| names(&["b", "c"])),
            rights: (number & 2 != 0).then(|| vec![Right::Read, Right::Work]),
            expires: (number & 4 != 0).then_some(UnixMillis(NOW.0 + 1_000)),
        };
        let also = Attenuation {
            rights: (number & 8 != 0).then(Vec::new),
            namespaces: (number & 16 != 0).then(|| names(&["a", "b"])),
            expires: None,
        };
        let weaker = token.attenuate(&less).unwrap().attenuate(&also).unwrap();
        let ours = weaker
            .verify(&[organisation.key.public()], NOW)
            .unwrap()
            .principal;
        let theirs = Biscuit::from_base64(weaker.as_str(), root).unwrap();
        for namespace in ["a", "b", "c"] {
            for (right, name) in [
                (Right::Read, "read"),
                (Right::Submit, "submit"),
                (Right::Work, "work"),
            ] {
                let allowed = ours.namespaces.contains(&namespace.parse().unwrap())
                    && ours.rights.contains(&right);
                assert_eq!(
                    allowed,
                    biscuit_allows(&theirs, namespace, name),
                    "{number} {namespace} {name}"
                );
            }
        }
    }
}

#[test]
fn fuzz_user_token() {
    let organisation = Organisation::new(1);
    let trusted = [organisation.key.public()];
    let good = organisation.user(&["lab"], &[Right::Read]);
    bolero::check!().for_each(move |bytes: &[u8]| {
        let text = hex::encode(bytes);
        if let Ok(token) = UserToken::from_text(&text) {
            assert!(token.verify(&trusted, NOW).is_err());
        }
        // A block of the bearer's own making behind a good token: never more than was granted.
        let source = String::from_utf8_lossy(bytes);
        if source.len() < 512
            && let Ok(block) = BlockBuilder::new().code(source)
        {
            let longer = UnverifiedBiscuit::from_base64(good.as_str()).unwrap();
            if let Ok(text) = longer.append(block).and_then(|token| token.to_base64())
                && let Ok(user) = UserToken::from_text(&text).unwrap().verify(&trusted, NOW)
            {
                assert!(
                    user.principal
                        .rights
                        .iter()
                        .all(|right| *right == Right::Read)
                );
            }
        }
    });
}

#[test]
fn tokens_are_not_printed() {
    let token = Organisation::new(1).user(&["lab"], &[Right::Read]);
    assert!(!format!("{token:?}").contains(&token.as_str()[..20]));
}

#[test]
fn a_private_key_made_elsewhere_from_the_same_seed_is_the_same_root() {
    let organisation = Organisation::new(1);
    let private = PrivateKey::from_bytes(organisation.key.seed().as_ref(), Algorithm::Ed25519);
    let public = KeyPair::from(&private.unwrap()).public();
    assert_eq!(public.to_bytes(), organisation.key.public().0);
}
