//! The load's threads: one glommio executor for each core. All that knows of glommio is here.
//!
//! Default queues and sockets only (ADR 0001 has the faults that this stays clear of). glommio can
//! spin before it sleeps, but gives way to nobody meanwhile, which starves the kernel's workers on
//! that core, those that complete synced writes among them: p50 of produce went from 0.4 to 3 ms.
//! So while executors spin, a task on each gives way every [`YIELD_EVERY`].

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};

use crate::BenchError;
use crate::clock::Clock;
use crate::kafka::{KafkaError, Replies, Requests, io_error};
use crate::open_loop::{Next, OpenLoop};

use super::{Lane, LaneOutcome};

/// The last replies may take this long.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How often the end, and room for another request, are looked for while replies are awaited.
const REPLY_CHECK: Duration = Duration::from_micros(50);

/// An executor that spins sleeps after this long without anything to do, that is, never: the task
/// that gives way comes before.
const SPIN: Duration = Duration::from_millis(2);
const YIELD_EVERY: Duration = Duration::from_micros(10);

type CoreOutcome = Result<Vec<LaneOutcome>, BenchError>;

/// Runs each core's lanes at the same time.
pub(super) fn run(work: Vec<(usize, Vec<Lane>)>, spins: bool) -> CoreOutcome {
    let clock = Clock::start();
    let mut running = Vec::new();
    for (core, lanes) in work {
        running.push(start(core, lanes, spins, clock)?);
    }
    let mut outcomes = Vec::new();
    for executor in running {
        outcomes.extend(executor.join().map_err(|error| failed(&error))??);
    }
    Ok(outcomes)
}

fn start(
    core: usize,
    lanes: Vec<Lane>,
    spins: bool,
    clock: Clock,
) -> Result<ExecutorJoinHandle<CoreOutcome>, BenchError> {
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(&format!("load-{core}"))
        .spin_before_park(if spins { SPIN } else { Duration::ZERO })
        .spawn(move || async move {
            let yielder = spins.then(|| glommio::spawn_local(give_way()));
            let tasks: Vec<_> = lanes
                .into_iter()
                .map(|lane| glommio::spawn_local(run_lane(lane, clock)).detach())
                .collect();
            let mut outcomes = Vec::new();
            for task in tasks {
                outcomes.push(task.await.ok_or(BenchError::Panicked)??);
            }
            drop(yielder);
            Ok(outcomes)
        })
        .map_err(|error| failed(&error))
}

/// Until it is dropped.
async fn give_way() {
    loop {
        rustix::thread::sched_yield();
        Timer::new(YIELD_EVERY).await;
    }
}

/// What the two halves of a connection share.
struct Shared {
    load: OpenLoop,
    replies: Replies,
    /// Why the receiving half ended.
    failed: Option<BenchError>,
}

async fn run_lane(lane: Lane, clock: Clock) -> Result<LaneOutcome, BenchError> {
    let stream = connect(lane.address).await?;
    let (reader, mut writer) = split(stream);
    let mut schedule = lane.schedule;
    // The connections were made after the clock was started.
    let base = clock.now();
    schedule.first_ns = schedule.first_ns.saturating_add(base);
    schedule.warmup_ns = schedule.warmup_ns.saturating_add(base);
    schedule.end_ns = schedule.end_ns.saturating_add(base);
    let load = OpenLoop::new(schedule, lane.in_flight_max)?;
    let shared = Shared { load, replies: Replies::default(), failed: None };
    let shared = Rc::new(RefCell::new(shared));
    let receiver = glommio::spawn_local(receive(reader, Rc::clone(&shared), clock));
    let drained = schedule.end_ns.saturating_add(crate::clock::nanos(DRAIN_MAX));
    let sent = send(&mut writer, lane.requests, &shared, clock, drained, lane.replies).await;
    // Also when sending failed: the receiver must not outlive the lane.
    receiver.cancel().await;
    sent?;
    let now = clock.now();
    let shared = Rc::into_inner(shared).ok_or(BenchError::Panicked)?.into_inner();
    match shared.failed {
        Some(error) => Err(error),
        None => Ok(LaneOutcome {
            outcome: shared.load.finish(now),
            first_error: shared.replies.first_error,
        }),
    }
}

async fn send(
    writer: &mut WriteHalf<TcpStream>,
    mut requests: Requests,
    shared: &RefCell<Shared>,
    clock: Clock,
    drained_ns: u64,
    replies: bool,
) -> Result<(), BenchError> {
    loop {
        let now = clock.now();
        if shared.borrow().failed.is_some() || now > drained_ns {
            return Ok(());
        }
        let next = shared.borrow().load.next(now);
        match next {
            Next::Send => {
                let index = shared.borrow_mut().load.sent(now);
                let sent = writer.write_all(requests.get(index)).await;
                sent.map_err(io_error("send a request"))?;
                if !replies {
                    shared.borrow_mut().load.replied(clock.now(), true);
                }
            }
            Next::WaitUntil(due) => drop(pause(Duration::from_nanos(due - now)).await),
            Next::AwaitReply | Next::Drain => drop(pause(REPLY_CHECK).await),
            Next::Done => return Ok(()),
        }
    }
}

fn pause(time: Duration) -> impl Future<Output = impl Sized> {
    Timer::new(time)
}

/// Until it is cancelled or the broker closes.
async fn receive(mut reader: ReadHalf<TcpStream>, shared: Rc<RefCell<Shared>>, clock: Clock) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let received = reader.read(&mut bytes).await.map_err(io_error("read a reply"));
        let now = clock.now();
        let shared = &mut *shared.borrow_mut();
        let settled = match received {
            Ok(0) => Err(KafkaError::Closed),
            Ok(len) => settle(shared, &bytes[..len], now),
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            shared.failed = Some(error.into());
            return;
        }
    }
}

fn settle(shared: &mut Shared, bytes: &[u8], now: u64) -> Result<(), KafkaError> {
    shared.replies.push(bytes);
    while let Some(good) = shared.replies.next_reply()? {
        shared.load.replied(now, good);
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> Result<TcpStream, BenchError> {
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    Ok(stream)
}

fn failed<T: std::fmt::Debug>(error: &GlommioError<T>) -> BenchError {
    BenchError::Executor { why: error.to_string() }
}
