//! All disks are lost: what the bucket alone gives back.

use std::collections::BTreeMap;

use model::{Offset, PartitionId};

use super::{Event, NODES, Simulation};
use crate::hardware::{End, unix_ms};
use crate::kafka::violation::Violation;

impl Simulation {
    /// At any moment a cluster can be rebuilt with all that is in objects.
    pub(super) fn look_at_rebuild(&mut self) -> Result<(), Violation> {
        let offloaded = self.offloaded_ends();
        if self.homes.version == 0 || offloaded.is_empty() {
            return Ok(()); // There is nothing to rebuild yet.
        }
        let failed = |reason| Violation::Rebuild { reason };
        let rebuild = self.store.rebuild(1, unix_ms(self.now)).map_err(failed)?;
        if let Some(damage) = rebuild.damage().first() {
            return Err(failed(damage.clone()));
        }
        let ends = rebuild.ends();
        for (id, end) in offloaded {
            let Some((name, found)) = ends.get(&id) else {
                return Err(failed(format!("partition {id} is not there")));
            };
            if *found < end {
                return Err(failed(format!("{name} ends at {found}, not at {end}")));
            }
        }
        self.report.rebuilds += 1;
        Ok(())
    }

    /// Where the records of each partition end that are in objects, by any broker's manifest.
    fn offloaded_ends(&self) -> BTreeMap<PartitionId, Offset> {
        let mut ends = BTreeMap::new();
        for broker in self.machines.iter().filter_map(|it| it.broker()) {
            for group in broker.groups() {
                let manifest = broker.manifest(group.group);
                for id in manifest.partitions() {
                    if let Some(end) = manifest.offloaded_end(id) {
                        let known = ends.entry(id).or_insert(end);
                        *known = end.max(*known);
                    }
                }
            }
        }
        ends
    }

    /// Every disk is lost. One broker gets what is rebuilt from the bucket, the others come with
    /// empty disks.
    pub(super) fn lose_all_disks(&mut self) -> Result<(), Violation> {
        let nodes = self.nodes();
        for node in &nodes {
            self.end_broker(*node, End::PowerCut);
            let incarnation = self.draw_incarnation();
            self.machines[*node].lose_disk(incarnation);
        }
        self.watch.all_is_lost();
        self.plan.retain(|_, event| !matches!(event, Event::Start(_)));
        let failed = |reason| Violation::Rebuild { reason };
        let incarnation = self.draw_incarnation();
        let rebuild = self.store.rebuild(incarnation, unix_ms(self.now)).map_err(failed)?;
        let first = NODES.iter().position(|it| *it == rebuild.node()).expect("a node");
        self.machines[first].set_incarnation(incarnation);
        self.machines[first].take_rebuilt(&rebuild).map_err(failed)?;
        self.note(first, &[18, incarnation.into()], || "is rebuilt, all else is lost".to_owned());
        for node in nodes {
            let after = if node == first { 0 } else { self.random.below(3_000_000) };
            self.plan(after, Event::Start(node));
        }
        self.report.disasters += 1;
        Ok(())
    }
}
