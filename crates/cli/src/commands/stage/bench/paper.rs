//! Lines that appear as soon as they are measured, and what is being measured meanwhile.

use indicatif::ProgressBar;

use crate::output::Output;

pub(super) struct Paper {
    output: Output,
    busy: ProgressBar,
}

impl Paper {
    pub(super) fn new(output: Output) -> Self {
        let busy = output.spinner("measuring");
        Self { output, busy }
    }

    /// Says what comes next, on a terminal.
    pub(super) fn begin(&self, what: impl Into<String>) {
        self.busy.set_message(what.into());
    }

    /// Prints a line.
    pub(super) fn line(&self, line: &str) {
        self.busy.suspend(|| self.output.say(line.trim_end()));
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        self.busy.finish_and_clear();
    }
}
