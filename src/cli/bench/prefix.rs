//! The contiguous prefix of finished tags, which one acknowledgement by `multiple` settles.

use std::collections::BTreeSet;

/// Tags of one channel, which begin at 1 and rise by one.
#[derive(Default)]
pub(super) struct Prefix {
    /// All up to here are finished.
    end: u64,
    /// All up to here are acknowledged.
    told: u64,
    beyond: BTreeSet<u64>,
}

impl Prefix {
    /// The message with this tag is done.
    pub(super) fn finish(&mut self, tag: u64) {
        self.beyond.insert(tag);
        while self.beyond.first() == Some(&(self.end + 1)) {
            self.beyond.pop_first();
            self.end += 1;
        }
    }

    /// The tag to acknowledge with everything before it, if there is something new.
    pub(super) fn take(&mut self) -> Option<u64> {
        let is_new = self.end > self.told;
        self.told = self.end;
        is_new.then_some(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_tag_that_is_missing() {
        let mut prefix = Prefix::default();
        prefix.finish(2);
        assert_eq!(prefix.take(), None);
        prefix.finish(1);
        prefix.finish(4);
        assert_eq!(prefix.take(), Some(2));
        assert_eq!(prefix.take(), None);
        prefix.finish(3);
        assert_eq!(prefix.take(), Some(4));
    }
}
