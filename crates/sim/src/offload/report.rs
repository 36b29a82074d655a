//! What happened in a run, to see that the runs are not idle.

use broker::simulation::Counters;
use s3_uploader::Injected;

use crate::counts::counts;

/// Counts of a run that held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// The same for the same seed.
    pub trace_hash: u64,
    /// Seconds of the broker's time.
    pub seconds: usize,
    pub acknowledged: usize,
    /// Acknowledged at a later attempt, after one whose fate nobody knew.
    pub repeats: usize,
    /// Batches refused because the log was full.
    pub refused: usize,
    pub timed_out: usize,
    /// Connections closed on producers that want no replies, because the log was full.
    pub closed: usize,
    /// Produce replies that asked the client to slow down.
    pub throttled: usize,
    pub batches_read: usize,
    pub reads_failed: usize,
    /// Reads of what had been deleted meanwhile.
    pub reads_too_late: usize,
    pub wal_reads: usize,
    pub object_reads: usize,
    pub power_cuts: usize,
    pub kills: usize,
    pub clean_stops: usize,
    /// Ends between an object's arrival and the entry that names it.
    pub ends_before_edit: usize,
    /// Ends as soon as the log had been compacted, and as objects had been deleted.
    pub ends_at_trim: usize,
    pub ends_at_deletion: usize,
    pub objects: usize,
    pub objects_deleted: usize,
    /// Objects put together from smaller ones, and what a crash had left and the broker deleted.
    pub merges: usize,
    pub orphans_deleted: usize,
    pub manifest_files: usize,
    /// Times that the log was compacted.
    pub compactions: usize,
    /// Log starts moved by a client, and by retention.
    pub trims: usize,
    pub expiries: usize,
    pub offload_failures: usize,
    pub outages: usize,
    pub store_failures: usize,
    pub lost_replies: usize,
    pub stalls: usize,
    pub damages: usize,
}

impl Report {
    /// A life of a broker is over.
    pub(crate) fn add_life(&mut self, counters: &Counters) {
        self.wal_reads += usize::from(counters.wal_reads > 0);
        self.object_reads += usize::from(counters.object_reads > 0);
        self.merges += usize::try_from(counters.merges).unwrap_or(usize::MAX);
        self.orphans_deleted += usize::try_from(counters.orphans_deleted).unwrap_or(usize::MAX);
        self.offload_failures += usize::try_from(counters.offload_failures).unwrap_or(usize::MAX);
    }

    pub(crate) fn set_injected(&mut self, injected: Injected) {
        self.store_failures = injected.failures;
        self.lost_replies = injected.lost_replies;
        self.stalls = injected.stalls;
        self.damages = injected.damages;
    }
}

counts! {
    seconds acknowledged repeats refused timed_out closed throttled batches_read reads_failed
    reads_too_late wal_reads object_reads power_cuts kills clean_stops ends_before_edit
    ends_at_trim ends_at_deletion objects objects_deleted merges orphans_deleted manifest_files
    compactions trims expiries offload_failures outages store_failures lost_replies stalls damages
}
