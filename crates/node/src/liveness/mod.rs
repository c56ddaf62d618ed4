//! Sessions by which a demand server notices within milliseconds that an agent's process is gone.
//!
//! An agent keeps one plain TCP connection to every demand server it works for. Nothing needs to be
//! said on it: when the process dies, whatever the reason, its kernel closes the socket, and the
//! server sees the end of the stream at once (DESIGN §7). Since connections also break by
//! themselves, the server then dials the agent's own liveness port once:
//!
//! ```text
//! end of stream ─▶ dial back ─▶ refused ─────────────────▶ Loss::Refused    the process is dead
//!                            ├▶ another incarnation answers ▶ Loss::Replaced  it died and came back
//!                            ├▶ the same one answers ─────▶ the new connection is the session
//!                            └▶ nothing in time ──────────▶ Loss::Silent      no verdict, leases decide
//! ```
//!
//! Whoever connects, the server speaks first: a [`Challenge`] with a random number, which the agent
//! signs in its [`Hello`]. So a hello cannot be replayed. The server only ever dials the address
//! that the session came from, at the port in the hello. On a session the server may *poke* the
//! agent: something about its jobs changed (cancelled, checkpoint wanted), so it should renew now.
//!
//! This is about processes on reachable machines. Cut cables and frozen kernels make silence, which
//! is judged by leases and by [guardians](Guardianship): other agents, which hold a session, too, and
//! to which the agent sends heartbeats over UDP. An agent asks a node to watch it in one datagram
//! each way over discovery's port ([`Vicinity`]); the node opens the session by dialling the agent's
//! door and showing the pass that came with the question.

mod circle;
mod entrust;
mod guard;
mod guardianship;
mod metrics;
mod pulse;
mod session;
mod watch;
mod wire;

pub use circle::{Candidate, Vicinity, Ward};
pub use guard::Bench;
pub use guardianship::Guardianship;
pub use metrics::GuardianMetrics;
pub use session::{AgentDoor, Poke, SessionPlace, keep_session};
pub use watch::{Loss, Notice, Peer, Watch, WatchConfig};
pub use wire::{Challenge, Hello, HelloError, Pass};
