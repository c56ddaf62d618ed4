//! The watchdog: how long a task may go on if nothing more is heard of its agent.
//!
//! An agent that is stopped, or so busy that it misses its own deadline, can neither pause its tasks nor end them; its
//! shims can. They are told until when, by the clock that goes on while the machine sleeps, and what to do then. A task
//! that was held so goes on when the agent says that there is more time: it only does after its store has answered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::super::spec::{Leash, Slack};

/// A leash and whether it holds the task.
pub(super) struct Watchdog {
    timer: OwnedFd,
    leash: Option<Leash>,
    holds: bool,
    /// The agent itself has paused the task.
    pub(super) is_paused: bool,
}

/// What is to be done with the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pull {
    Nothing,
    Pause,
    Resume,
    Kill,
}

impl Watchdog {
    pub(super) fn new(leash: Option<Leash>) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let mut watchdog = Self {
            timer: timerfd_create(TimerfdClockId::Boottime, flags)?,
            leash: None,
            holds: false,
            is_paused: false,
        };
        if let Some(leash) = leash {
            watchdog.lengthen(leash)?;
        }
        Ok(watchdog)
    }

    /// Becomes readable when [`Watchdog::bite`] is due.
    pub(super) fn wakes(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Takes a new leash. One that is over already bites at once.
    pub(super) fn lengthen(&mut self, leash: Leash) -> io::Result<Pull> {
        self.set(Some(leash.until_us))?;
        self.leash = Some(leash);
        // What the agent has paused too, it resumes itself.
        Ok(match !self.is_paused && self.let_go() {
            true => Pull::Resume,
            false => Pull::Nothing,
        })
    }

    /// The leash is over.
    pub(super) fn bite(&mut self) -> io::Result<Pull> {
        self.set(None)?;
        Ok(match self.leash.take().map(|leash| leash.then) {
            None => Pull::Nothing,
            Some(Slack::Kill) => Pull::Kill,
            Some(Slack::Pause) => {
                self.holds = true;
                Pull::Pause
            }
        })
    }

    /// Lets go of the task; whether it held it. An agent that resumes it by its own means does not know.
    pub(super) fn let_go(&mut self) -> bool {
        std::mem::take(&mut self.holds)
    }

    fn set(&self, until_us: Option<u64>) -> io::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // An absolute time of 0 would disarm it.
        let value = until_us.map_or(zero, |us| timespec(us.max(1)));
        let timer = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer)?;
        Ok(())
    }
}

fn timespec(us: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(us % 1_000_000).unwrap_or(0) * 1_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    const OVER: Leash = Leash {
        until_us: 1,
        then: Slack::Pause,
    };
    const FAR: Leash = Leash {
        until_us: u64::MAX / 2_000_000,
        then: Slack::Pause,
    };

    fn is_due(watchdog: &Watchdog) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(watchdog.wakes(), PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).unwrap() == 1
    }

    #[test]
    fn it_bites_once_and_lets_go_when_there_is_more_time() {
        let mut watchdog = Watchdog::new(Some(OVER)).unwrap();
        assert!(is_due(&watchdog));
        assert_eq!(watchdog.bite().unwrap(), Pull::Pause);
        assert!(!is_due(&watchdog));
        assert_eq!(watchdog.lengthen(FAR).unwrap(), Pull::Resume);
        assert!(!is_due(&watchdog));
        assert_eq!(watchdog.lengthen(FAR).unwrap(), Pull::Nothing);
    }

    #[test]
    fn what_the_agent_paused_stays_paused() {
        let mut watchdog = Watchdog::new(Some(OVER)).unwrap();
        watchdog.bite().unwrap();
        watchdog.is_paused = true;
        assert_eq!(watchdog.lengthen(FAR).unwrap(), Pull::Nothing);
        assert!(watchdog.let_go());
    }

    #[test]
    fn a_task_that_wants_to_be_stopped_is_killed_and_one_without_a_leash_is_left_alone() {
        let kill = Leash {
            then: Slack::Kill,
            ..OVER
        };
        let mut watchdog = Watchdog::new(Some(kill)).unwrap();
        assert_eq!(watchdog.bite().unwrap(), Pull::Kill);
        let mut watchdog = Watchdog::new(None).unwrap();
        assert!(!is_due(&watchdog));
        assert_eq!(watchdog.bite().unwrap(), Pull::Nothing);
    }
}
