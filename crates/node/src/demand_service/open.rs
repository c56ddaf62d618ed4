//! Opening the store that is served.

use std::sync::Arc;

use mutual_demand::postgres::PostgresStore;
use mutual_demand::sqlite::SqliteStore;
use mutual_demand::{DemandStore, StoreConfig, StoreError, StoreResult};

use super::{DemandServerConfig, StoreKind};

pub(super) async fn store(config: &DemandServerConfig) -> StoreResult<Arc<dyn DemandStore>> {
    let settings = StoreConfig {
        terms: config.terms,
        quorum: config.quorum,
        accept_data_loss: config.accept_data_loss,
        ..StoreConfig::default()
    };
    match &config.kind {
        StoreKind::Sqlite(path) => {
            let path = path.clone();
            let opening = tokio::task::spawn_blocking(move || SqliteStore::open(path, settings));
            let opened = opening.await;
            let opened = opened.map_err(|error| StoreError::Internal(error.to_string()))?;
            Ok(Arc::new(opened?))
        }
        StoreKind::Postgres(url) => Ok(Arc::new(PostgresStore::connect(url, settings).await?)),
    }
}
