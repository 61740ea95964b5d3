//! The sentence of a change of the number of replicas. Why is put into plain words where the reason is still typed
//! (`core::scale::Plain`); nothing here takes a sentence apart.

use std::fmt;

use crate::core::ledger::Scale;

impl Scale {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, whose: &str) -> fmt::Result {
        let plural = if self.to == 1 { "" } else { "s" };
        if self.from == self.to {
            write!(f, "{whose}: stays at {} replica{plural}, because ", self.to)?;
        } else {
            write!(f, "{whose}: from {} to {} replica{plural}, because ", self.from, self.to)?;
        }
        f.write_str(self.plainly.as_ref().unwrap_or(&self.because))
    }
}
