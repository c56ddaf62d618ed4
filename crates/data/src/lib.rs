//! Bytes of Mutual Cloud: sealed, cut into blocks, linked into Merkle DAGs, stored, and moved between peers.
//!
//! Everything that travels is addressed by the hash of what travels, so whoever holds a block can serve it, and
//! whoever receives one can check it, without a key and without trust. Private objects are encrypted before they are
//! addressed; their names and structure are private too.
//!
//! | module | idea |
//! |---|---|
//! | [`address`] | a block's name is its hash (CIDv1) |
//! | [`seal`] | keys, and the two ways a chunk is encrypted |
//! | [`dag`] | the nodes that link blocks, decoded with bounds |
//! | [`section`] | a stream of bytes as a chain of chunks, written and read in bounded memory |
//! | [`store`] | blocks on disk: verified, pinned, collected, within a quota |
//! | [`tree`] | a file or directory as one sealed object |
//! | [`image`] | OCI images as DAGs of their own blobs, and their root file systems |
//! | [`transfer`] | `/mutual/blocks/1`: fetching from many peers, and asking peers to keep |
//!
//! This crate knows nothing of SQL, HTTP or sockets. What touches files is synchronous (call it from a blocking
//! task); what talks to peers is asynchronous over any byte stream.

mod beneath;

pub mod address;
pub mod dag;
pub mod image;
pub mod seal;
pub mod section;
pub mod store;
pub mod transfer;
pub mod tree;

pub use address::Cid;
pub use seal::DataKey;
pub use store::BlockStore;
