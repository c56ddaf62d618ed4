//! Idle processes as large as an agent, killed in the same number: how fast the kernel itself can
//! tell of such deaths on this machine, now.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;

use super::eof::Eofs;
use super::times::Times;
use super::{seconds_between, unix_us};
use crate::commands::status;
use crate::failure::{Failure, Naming as _, Outcome};

/// How long an idle process may take to start.
const START: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;
const KIB_PER_MIB: usize = 1024;
/// Every page must be written to, to be there.
const PAGE: usize = 4096;

/// Be an idle process of a certain size with a connection
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// MiB of memory to have resident
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=4_096))]
    mib: u32,
    /// Whom to connect to
    #[arg(long, value_name = "HOST:PORT")]
    to: SocketAddr,
}

/// Until standard input closes, or a signal comes that no one hears.
pub(crate) fn idle(args: &Args) -> Outcome {
    let own = status::kib(&read_status("self")?, "VmRSS") as usize / KIB_PER_MIB;
    let more = (args.mib as usize).saturating_sub(own);
    let mut memory = vec![0_u8; more * MIB];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    let mut stream = TcpStream::connect(args.to).naming(args.to)?;
    stream.write_all(b"+").naming(args.to)?;
    let _ = std::io::stdin().read(&mut [0]);
    drop(std::hint::black_box(memory));
    Ok(())
}

/// MiB that a process has resident.
pub(crate) fn resident_mib(pid: u32) -> Outcome<u64> {
    let kib = status::kib(&read_status(&pid.to_string())?, "VmRSS");
    Ok(kib / KIB_PER_MIB as u64)
}

fn read_status(process: &str) -> Outcome<String> {
    let path = format!("/proc/{process}/status");
    std::fs::read_to_string(&path).naming(path)
}

/// They die with their owner.
#[derive(Debug, Default)]
struct Idlers(Vec<Child>);

impl Drop for Idlers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// Starts `count` idle processes of `mib` MiB, kills all at once, and gives the times from the kill
/// to the end of each connection.
pub(crate) async fn measure(count: usize, mib: u64) -> Outcome<Option<Times>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.naming("loopback")?;
    let address = listener.local_addr().naming("loopback")?;
    let mut idlers = Idlers::default();
    let mut eofs = Eofs::default();
    for number in 0..count {
        idlers.0.push(start(address, mib)?);
        let accepted = tokio::time::timeout(START, ready(&listener)).await;
        let stream = accepted.map_err(|_| Failure::internal("an idle process does not start"))?;
        eofs.hold(number, stream?);
    }
    let killed_us = unix_us();
    for child in &mut idlers.0 {
        child.kill().map_err(Failure::internal)?;
    }
    let ends = eofs.all().await?;
    let times = ends
        .values()
        .map(|end_us| seconds_between(killed_us, *end_us));
    Ok(Times::of(times.collect()))
}

/// Its memory is filled when it says its first word.
async fn ready(listener: &TcpListener) -> Outcome<tokio::net::TcpStream> {
    let (mut stream, _) = listener.accept().await.map_err(Failure::internal)?;
    let said = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
    said.map_err(Failure::internal)?;
    Ok(stream)
}

fn start(address: SocketAddr, mib: u64) -> Outcome<Child> {
    let program = std::env::current_exe().map_err(Failure::internal)?;
    let child = Command::new(program)
        .args(["experiment", "idle", "--mib", &mib.to_string()])
        .args(["--to", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.map_err(|error| Failure::internal(format!("an idle process cannot be started: {error}")))
}
