//! Log tokens and signed offers.

use mutual_demand::Right;
use mutual_model::identity::{NodeId, PublicKey, Role};
use mutual_model::ids::JobId;
use mutual_model::matching::Need;
use mutual_model::resources::Resources;
use mutual_model::time::UnixMillis;
use mutual_node::auth::{
    EnvelopeError, JobOffer, JobOfferReply, LOG_TOKEN_LIFETIME, LogToken, NodeSigner, OfferVoucher,
    unix_now,
};

use super::fixture::Organisation;

fn job() -> JobId {
    JobId::new(unix_now(), [1; 10])
}

struct Scene {
    organisation: Organisation,
    agent: NodeSigner,
    trusted: [PublicKey; 1],
}

impl Scene {
    fn new() -> Self {
        let organisation = Organisation::at(1, unix_now());
        let agent = organisation.node(2, &["lab"], &[Role::Agent]);
        let trusted = [organisation.key.public()];
        Self {
            organisation,
            agent,
            trusted,
        }
    }

    fn here(&self) -> NodeId {
        self.agent.key().id()
    }

    fn read(&self, text: &str, now: UnixMillis) -> Result<LogToken, EnvelopeError> {
        LogToken::verify(text, &self.here(), &self.trusted, now)
    }

    fn offer(&self) -> JobOffer {
        let resources = Resources {
            cpu_millis: 500,
            memory_bytes: 64 << 20,
            ..Resources::ZERO
        };
        let need = Need {
            resources,
            class: None,
            labels: Default::default(),
        };
        let url = "http://127.0.0.1:1".to_owned();
        JobOffer::new(self.here(), vec![job()], url, "lab".parse().unwrap(), need)
    }
}

#[test]
fn log_tokens_open_one_log_on_one_agent_for_a_minute() {
    let scene = Scene::new();
    let token = LogToken::new(job(), "lab".parse().unwrap(), scene.here());
    for role in [Role::Control, Role::Demand] {
        let text = token.sign(&scene.organisation.node(3, &["lab"], &[role]));
        assert_eq!(scene.read(&text, unix_now()).unwrap(), token);
        let late = scene.read(&text, unix_now().after(LOG_TOKEN_LIFETIME));
        assert!(matches!(late, Err(EnvelopeError::Expired { .. })));
        let elsewhere = scene.organisation.key.id();
        let other = LogToken::verify(&text, &elsewhere, &scene.trusted, unix_now());
        assert!(matches!(other, Err(EnvelopeError::NotAllowed(_))));
    }
}

#[test]
fn log_tokens_of_others_open_nothing() {
    let scene = Scene::new();
    let token = LogToken::new(job(), "lab".parse().unwrap(), scene.here());
    let organisation = &scene.organisation;
    let foreign = Organisation::at(9, unix_now());
    for signer in [
        organisation.node(3, &["lab"], &[Role::Agent, Role::Seeder]),
        organisation.node(3, &["other"], &[Role::Control]),
        foreign.node(3, &["lab"], &[Role::Control]),
    ] {
        assert!(scene.read(&token.sign(&signer), unix_now()).is_err());
    }
    let mut changed = token
        .sign(&organisation.node(3, &["lab"], &[Role::Control]))
        .into_bytes();
    let last = changed.len() - 10;
    changed[last] ^= 1;
    let changed = String::from_utf8_lossy(&changed).into_owned();
    assert!(scene.read(&changed, unix_now()).is_err());
}

#[test]
fn offers_of_servers_are_believed_and_fit_a_datagram() {
    let scene = Scene::new();
    let offer = scene.offer();
    let control = scene.organisation.node(3, &["lab"], &[Role::Control]);
    let bytes = offer.sign(&control);
    assert!(bytes.len() < 1_000, "{} bytes", bytes.len());
    let read = JobOffer::verify(&bytes, &scene.here(), &scene.trusted, unix_now()).unwrap();
    assert_eq!(
        read,
        (offer.clone(), OfferVoucher::Node(control.key().id()))
    );
    let agent = scene.organisation.node(4, &["lab"], &[Role::Agent]);
    let refused = JobOffer::verify(
        &offer.sign(&agent),
        &scene.here(),
        &scene.trusted,
        unix_now(),
    );
    assert!(matches!(refused, Err(EnvelopeError::NotAllowed(_))));
    let elsewhere = agent.key().id();
    let refused = JobOffer::verify(&bytes, &elsewhere, &scene.trusted, unix_now());
    assert!(matches!(refused, Err(EnvelopeError::NotAllowed(_))));
}

#[test]
fn offers_of_users_carry_a_token_that_permits_nothing() {
    let scene = Scene::new();
    let offer = scene.offer();
    let user = scene
        .organisation
        .user(&["lab"], &[Right::Read, Right::Submit]);
    let voucher = JobOffer::voucher(&user, &offer.namespace).unwrap();
    let stripped = voucher.verify(&scene.trusted, unix_now()).unwrap();
    assert_eq!(stripped.principal.rights, []);
    let read = JobOffer::verify(
        &offer.vouch(&voucher),
        &scene.here(),
        &scene.trusted,
        unix_now(),
    );
    assert_eq!(read.unwrap().1, OfferVoucher::User("ada@lab".into()));
    let outsider = scene.organisation.user(&["other"], &[Right::Submit]);
    let refused = JobOffer::verify(
        &offer.vouch(&outsider),
        &scene.here(),
        &scene.trusted,
        unix_now(),
    );
    assert!(matches!(refused, Err(EnvelopeError::NotAllowed(_))));
}

#[test]
fn answers_count_only_from_the_agent_asked() {
    let scene = Scene::new();
    let offer = scene.offer();
    let reply = JobOfferReply {
        nonce: offer.nonce,
        accepted: vec![],
        declined: Some("memory: 1 GiB free, 4 GiB asked".into()),
    };
    let verify = |signer: &NodeSigner, reply: &JobOfferReply| {
        JobOfferReply::verify(&reply.sign(signer), &offer, &scene.trusted, unix_now())
    };
    assert_eq!(verify(&scene.agent, &reply).unwrap(), reply);
    let other = scene.organisation.node(5, &["lab"], &[Role::Agent]);
    assert!(verify(&other, &reply).is_err());
    let stale = JobOfferReply {
        nonce: scene.offer().nonce,
        ..reply
    };
    assert!(verify(&scene.agent, &stale).is_err());
}

#[test]
fn fuzz_offer() {
    let scene = Scene::new();
    let (here, trusted, offer) = (scene.here(), scene.trusted, scene.offer());
    bolero::check!().for_each(move |bytes: &[u8]| {
        assert!(JobOffer::verify(bytes, &here, &trusted, unix_now()).is_err());
        assert!(JobOfferReply::verify(bytes, &offer, &trusted, unix_now()).is_err());
    });
}
