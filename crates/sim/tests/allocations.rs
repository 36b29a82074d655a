//! How often the produce path asks for memory. The number is the same in every run of a build, so a
//! change that asks more often on the way of a request is seen here.

use sim::cost::CostRun;
use uring::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const REQUESTS: usize = 1000;
/// Of one request, whatever its records: what its decoded form, its response and its raft entry are
/// made of, and two of the simulation. A hundredth more is for what grows now and then, and ticks.
const KNOWN: usize = 23;

#[test]
fn a_produce_request_asks_for_memory_no_more_often_than_is_known() {
    for records in [1, 50] {
        let mut run = CostRun::new(records);
        run.produce(REQUESTS / 10);
        let before = ALLOCATOR.allocations();
        run.produce(REQUESTS);
        let found = ALLOCATOR.allocations() - before;
        let most = u64::try_from(KNOWN * REQUESTS * 101 / 100).expect("small");
        println!("{records} records a request: {found} allocations for {REQUESTS} requests");
        assert!(found <= most, "{records} records: {found} allocations, {most} are known");
    }
}
