//! Where messages come from. Bytes are handed on as they arrived; nothing in here judges a message.

pub mod api;
mod api_error;
mod deployment;
mod drain;
mod error;
#[cfg(test)]
mod fuzz;
mod memory;
mod names;
mod node;
mod opensearch;
mod page;
mod password;
mod purge;
mod related;
mod restore;
mod secret;

pub use deployment::{SourceMode, Sources};
pub use drain::{Defect, Document, Drain, DrainCursor};
pub use error::SourceError;
pub use memory::MemoryNode;
pub use names::{IndexWrites, NAMES_AT_ONCE, Write, WrittenAfter};
pub use node::{Body, HttpRequest, HttpResponse, Node};
pub use opensearch::{Auth, Indices, MessageField, OpenSearch, RENEWED_EVERY, Sighting};
pub use page::Hit;
pub use purge::{Deleted, Stored};
pub use related::{Related, RelatedBodies};
pub use secret::{ReadSecret, SecretError, SecretsManager};
