//! What happened in a run, to see that the runs are not idle.

use broker::simulation::Counters;
use s3_uploader::Injected;

use crate::counts::counts;

/// Counts of a run that held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// The same for the same seed.
    pub trace_hash: u64,
    pub seconds: usize,
    pub acknowledged: usize,
    /// Acknowledged at a later attempt, after one whose fate nobody knew.
    pub repeats: usize,
    /// Batches refused because the log was full.
    pub refused: usize,
    pub timed_out: usize,
    /// Answers of brokers that did not lead.
    pub not_leader: usize,
    /// Clients that gave a broker up because it did not answer.
    pub given_up: usize,
    pub batches_read: usize,
    pub reads_failed: usize,
    pub reads_of_old_leaders: usize,
    pub power_cuts: usize,
    pub kills: usize,
    pub stops: usize,
    pub pauses: usize,
    /// Links cut for a while, both ways and one way.
    pub cuts: usize,
    pub cuts_one_way: usize,
    /// Connections broken with what was on the way.
    pub breaks: usize,
    pub disks_lost: usize,
    /// Of those, the ones in whose place another one came to vote.
    pub disks_replaced: usize,
    /// Brokers that came back with a disk that was replaced.
    pub disks_found: usize,
    /// Brokers that joined the cluster, that had no copy of anything after a while, and that left.
    pub joined: usize,
    pub drained: usize,
    pub removed: usize,
    /// Brokers that came back with the next build, and with one that is too new for others.
    pub upgrades: usize,
    pub too_new: usize,
    /// Partitions that another group has got.
    pub moved: usize,
    /// What the bucket alone gives back was compared with what was offloaded.
    pub rebuilds: usize,
    /// All disks were lost, and all was there again.
    pub disasters: usize,
    /// Terms in which somebody led.
    pub terms: usize,
    /// Snapshots of leaders that took the place of a log.
    pub snapshots: usize,
    /// Connections closed by brokers that knew no leader.
    pub let_go: usize,
    /// Batches that waited until less was not committed.
    pub held: usize,
    /// Leadership that was given to a broker that suits better.
    pub hand_overs: usize,
    pub compactions: usize,
    pub wal_reads: usize,
    pub object_reads: usize,
    pub merges: usize,
    pub objects: usize,
    pub objects_deleted: usize,
    pub store_failures: usize,
    pub lost_replies: usize,
    pub stalls: usize,
    pub damages: usize,
}

impl Report {
    /// A life of a broker is over.
    pub(crate) fn add_life(&mut self, counters: &Counters) {
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        self.wal_reads += usize::from(counters.wal_reads > 0);
        self.object_reads += usize::from(counters.object_reads > 0);
        self.merges += count(counters.merges);
        self.objects += count(counters.objects);
        self.snapshots += count(counters.snapshots);
        self.held += count(counters.held);
        self.let_go += count(counters.let_go);
        self.hand_overs += count(counters.hand_overs);
    }

    pub(crate) fn set_injected(&mut self, injected: Injected) {
        self.store_failures = injected.failures;
        self.lost_replies = injected.lost_replies;
        self.stalls = injected.stalls;
        self.damages = injected.damages;
    }
}

counts! {
    seconds acknowledged repeats refused timed_out not_leader given_up batches_read reads_failed
    reads_of_old_leaders power_cuts kills stops pauses cuts cuts_one_way breaks disks_lost
    disks_replaced disks_found joined drained removed upgrades too_new moved rebuilds disasters
    terms snapshots held let_go hand_overs compactions wal_reads object_reads merges objects
    objects_deleted store_failures lost_replies stalls damages
}
