//! Who takes part in the bench, and the task that they pass around.

use std::collections::BTreeMap;

use mutual_demand::{
    ClaimRequest, ClaimScope, EncMeta, FinishRequest, Manifest, Metrics, Offer, Outcome, Principal,
    ResultView, Right, Submission,
};
use mutual_model::identity::NodeKey;
use mutual_model::ids::{Incarnation, Nonce};
use mutual_model::job::{IsolationClass, TaskSpec};
use mutual_model::lease::Claim;
use mutual_model::receipt::StorageReceipt;
use mutual_model::resources::Resources;
use mutual_model::time::UnixMillis;

use crate::Failure;

pub(crate) const NAMESPACE: &str = "lab";
pub(crate) const AGENT_URL: &str = "http://192.0.2.1:7000";

/// A user and an agent in one: it submits a task, claims one, and ends it.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) key: NodeKey,
    pub(crate) who: Principal,
    pub(crate) incarnation: Incarnation,
    result: ResultView,
    name: String,
    submitted: u64,
}

impl Worker {
    pub(crate) fn new(number: u8) -> Result<Self, Failure> {
        let key = NodeKey::from_seed(&[number; 32]);
        let who = Principal {
            subject: format!("worker-{number}"),
            node: Some(key.id()),
            sealing: key.sealing_public(),
            namespaces: vec![NAMESPACE.parse()?],
            rights: vec![Right::Read, Right::Submit, Right::Work],
        };
        Ok(Self {
            incarnation: Incarnation::new(UnixMillis(1), [number; 10]),
            result: result()?,
            name: hex::encode(rand::random::<[u8; 8]>()),
            submitted: 0,
            key,
            who,
        })
    }

    pub(crate) fn submission(&mut self) -> Result<Submission, Failure> {
        self.submitted += 1;
        Ok(Submission {
            namespace: NAMESPACE.parse()?,
            client_key: format!("{}-{}", self.name, self.submitted).parse()?,
            spec: task(),
            result_key: None,
            input: None,
        })
    }

    pub(crate) fn request(&self, slots: u32) -> ClaimRequest {
        ClaimRequest {
            incarnation: self.incarnation,
            nonce: Nonce(rand::random()),
            scope: ClaimScope::Any,
            offer: Offer {
                free: Resources {
                    cpu_millis: 4_000_000,
                    memory_bytes: 1 << 44,
                    gpus: 0,
                    scratch_bytes: 0,
                },
                slots,
                classes: IsolationClass::ALL.to_vec(),
                labels: BTreeMap::new(),
            },
            agent_url: AGENT_URL.into(),
        }
    }

    pub(crate) fn success(&self, claim: Claim) -> FinishRequest {
        FinishRequest {
            claim,
            outcome: Outcome::Success,
            result: self.result.clone(),
        }
    }
}

/// A task that does nothing, with every default: its result needs one other peer's receipt.
pub(crate) fn task() -> TaskSpec {
    let need = Resources {
        cpu_millis: 1_000,
        memory_bytes: 64 << 20,
        ..Resources::ZERO
    };
    TaskSpec::new(vec!["true".into()], need)
}

/// What such a task leaves.
pub(crate) fn result() -> Result<ResultView, Failure> {
    let root: mutual_model::ids::ContentId = "bafyresult".parse()?;
    let peer = NodeKey::from_seed(&[250; 32]);
    let receipt = StorageReceipt::sign(&peer, root.clone(), 512, UnixMillis(u64::MAX));
    Ok(ResultView {
        output: Some(Manifest {
            root,
            bytes: 512,
            seeders: vec!["/ip4/192.0.2.1/udp/4001/quic-v1".into()],
            enc_meta: EncMeta {
                scheme: "aes-256-gcm-stream/1".into(),
                sealed_key: vec![7; 80],
            },
            receipts: vec![receipt],
        }),
        artifacts: Vec::new(),
        log: None,
        metrics: Metrics::default(),
    })
}
