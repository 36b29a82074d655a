use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use clap::Parser;
use kafka_wire::api_versions::ApiVersionsResponse;
use kafka_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_wire::{FrameLimits, FrameReader, Request, Response, decode, encode};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: ClusterCommand,
}

fn parse(line: &str) -> Result<ClusterCommand, String> {
    let words = std::iter::once("cluster").chain(line.split(' '));
    Line::try_parse_from(words).map(|line| line.command).map_err(|error| error.to_string())
}

/// Runs a command against a broker that answers thus; what it printed, and how it ended.
fn run(
    line: &str,
    answer: impl FnMut(&Request) -> Response + Send,
) -> (String, Result<(), String>) {
    run_against(&ApiVersionsResponse::supported(), line, answer)
}

/// The same, against a broker that serves these APIs.
fn run_against(
    served: &ApiVersionsResponse,
    line: &str,
    mut answer: impl FnMut(&Request) -> Response + Send,
) -> (String, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let command = parse(&format!("{line} --bootstrap {address}")).expect(line);
    let mut out = Vec::new();
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().expect("the command connects");
            serve(stream, served, &mut answer);
        });
        command.run(&mut out).map_err(|error| error.to_string())
    });
    (String::from_utf8(out).expect("text"), ended)
}

fn serve(
    mut stream: TcpStream,
    served: &ApiVersionsResponse,
    answer: &mut dyn FnMut(&Request) -> Response,
) {
    let mut requests = FrameReader::new(FrameLimits::default());
    let mut bytes = [0; 4096];
    loop {
        while let Some(frame) = requests.next_frame().expect("framed") {
            let (header, request) = decode(frame).expect("a request");
            let response = match &request {
                Request::ApiVersions(_) => Response::ApiVersions(served.clone()),
                other => answer(other),
            };
            let reply = encode(&header, response).expect("encodes").concat();
            stream.write_all(&reply).expect("the command listens");
        }
        match stream.read(&mut bytes) {
            Ok(length) if length > 0 => requests.push(&bytes[..length]),
            _ => return,
        }
    }
}

/// Brokers 1 to `count`; topic `t` with these partitions: leader, replicas, those that are away.
fn metadata(count: i32, partitions: &[(i32, &[i32], &[i32])]) -> m::MetadataResponse {
    let broker = |id: i32| {
        let rack = (id == 2).then(|| StrBytes::from_static_str("west"));
        let host = StrBytes::from_string(format!("host{}", "x".repeat(id as usize)));
        MetadataResponseBroker::default()
            .with_node_id(id.into())
            .with_host(host)
            .with_port(9092)
            .with_rack(rack)
    };
    let ids = |ids: &[i32]| ids.iter().map(|id| (*id).into()).collect::<Vec<m::BrokerId>>();
    let partition = |(index, (leader, replicas, away)): (i32, &(i32, &[i32], &[i32]))| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id((*leader).into())
            .with_replica_nodes(ids(replicas))
            .with_offline_replicas(ids(away))
    };
    let topic = MetadataResponseTopic::default()
        .with_name(Some(StrBytes::from_static_str("t").into()))
        .with_partitions((0..).zip(partitions).map(partition).collect());
    m::MetadataResponse::default()
        .with_brokers((1..=count).map(broker).collect())
        .with_controller_id(1.into())
        .with_topics(vec![topic])
}

/// Partitions 0 and 3 of topic `t` move; the first one's brokers stay.
fn moving() -> Response {
    let ids = |ids: &[i32]| ids.iter().map(|id| (*id).into()).collect::<Vec<m::BrokerId>>();
    let partition = |index, replicas: &[i32], adding: &[i32], removing: &[i32]| {
        OngoingPartitionReassignment::default()
            .with_partition_index(index)
            .with_replicas(ids(replicas))
            .with_adding_replicas(ids(adding))
            .with_removing_replicas(ids(removing))
    };
    let topic = OngoingTopicReassignment::default()
        .with_name(StrBytes::from_static_str("t").into())
        .with_partitions(vec![
            partition(0, &[2, 1], &[], &[]),
            partition(3, &[3, 1, 2], &[3], &[2]),
        ]);
    let reply = m::ListPartitionReassignmentsResponse::default().with_error_message(None);
    Response::ListPartitionReassignments(reply.with_topics(vec![topic]))
}

fn removed(code: ErrorCode) -> Response {
    Response::RemoveRaftVoter(
        m::RemoveRaftVoterResponse::default().with_error_code(code.code()).with_error_message(None),
    )
}

#[test]
fn commands_are_read() {
    let ClusterCommand::Status(args) = parse("status").unwrap() else { panic!("status") };
    assert_eq!(args.bootstrap, HostPort::new("127.0.0.1", 9092));
    let ClusterCommand::Add(args) = parse("add 3@[::1]:10092").unwrap() else { panic!("add") };
    assert_eq!(args.broker.to_string(), "3@[::1]:10092");
    let ClusterCommand::Drain(args) = parse("drain 3").unwrap() else { panic!("drain") };
    assert_eq!((args.broker, args.patience.timeout, args.cancel), (3, 600, false));
    let ClusterCommand::Remove(args) = parse("remove 3 --timeout 5").unwrap() else {
        panic!("remove")
    };
    assert_eq!((args.broker, args.patience.timeout), (3, 5));
    assert!(matches!(parse("rebalance"), Ok(ClusterCommand::Rebalance(_))));
    let ClusterCommand::Move(args) = parse("move t 3 4,1,2").unwrap() else { panic!("move") };
    let expected = ("t", 3, &[4, 1, 2][..], false);
    assert_eq!((&*args.topic, args.partition, &args.brokers[..], args.cancel), expected);
    let ClusterCommand::Move(args) = parse("move t 3 --cancel").unwrap() else { panic!("move") };
    assert!(args.cancel && args.brokers.is_empty());
    for (line, why) in [
        ("move t", "<PARTITION>"),
        ("move t 3", "<BROKER[,BROKER...]>"),
        ("move t 3 4 1", "unexpected argument '1'"),
        ("move t 3 4,-1", "-1 is not in 0.."),
        ("move t 3 4,", "invalid"),
        ("move t -1 4", "unexpected argument"),
        ("move t 3 4 --cancel", "cannot be used with"),
        ("add 3", "is not ID@HOST:PORT"),
        ("add 3@h", "has no port"),
        ("drain -1", "unexpected argument"),
        ("drain 65536", "65536 is not in 0..=65535"),
        ("drain", "<ID>"),
        ("drain 3 --timeout soon", "invalid digit"),
        ("drain 3 --cancel --timeout 5", "cannot be used with"),
        ("status --bootstrap h", "has no port"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn the_status_is_a_table_and_a_line_for_each_lack() {
    let metadata = metadata(
        3,
        &[(1, &[1, 2], &[]), (2, &[2, 1], &[]), (-1, &[1, 3], &[1, 3]), (1, &[1, 2], &[2])],
    );
    let answer = |request: &Request| match request {
        Request::Metadata(_) => Response::Metadata(metadata.clone()),
        Request::ListPartitionReassignments(request) if request.topics.is_none() => moving(),
        other => panic!("{other:?}"),
    };
    let (out, ended) = run("status", answer);
    assert_eq!(ended, Ok(()));
    assert_eq!(
        out,
        [
            "broker  address       rack  leads  holds",
            "     1  hostx:9092    -         2      4",
            "     2  hostxx:9092   west      1      3",
            "     3  hostxxx:9092  -         0      1",
            "4 partitions, 1 without a leader, 2 with replicas that are away, 2 that move",
            "t-2: no leader",
            "t-2: away are 1, 3",
            "t-3: away are 2",
            "t-0: goes to 2, 1",
            "t-3: goes to 3, 1",
            "",
        ]
        .join("\n")
    );
}

#[test]
fn the_status_of_a_cluster_that_moves_nothing_is_shown_by_older_brokers_too() {
    let last = "1 partitions, 0 without a leader, 0 with replicas that are away, 0 that move\n";
    let mut older = ApiVersionsResponse::supported();
    older.api_keys.retain(|api| api.api_key != ApiKey::ListPartitionReassignments.code());
    let (out, ended) = run_against(&older, "status", |request| {
        assert!(matches!(request, Request::Metadata(_)), "{request:?}");
        Response::Metadata(metadata(1, &[(1, &[1], &[])]))
    });
    assert_eq!(ended, Ok(()));
    assert!(out.ends_with(last), "{out}");
    let reply = m::ListPartitionReassignmentsResponse::default()
        .with_error_code(ErrorCode::ClusterAuthorizationFailed.code());
    let (_, ended) = run("status", |request| match request {
        Request::Metadata(_) => Response::Metadata(metadata(1, &[(1, &[1], &[])])),
        _ => Response::ListPartitionReassignments(reply.clone()),
    });
    assert_eq!(ended.unwrap_err(), "cannot list what moves: CLUSTER_AUTHORIZATION_FAILED(31): ");
}

/// The reply to a request for one partition, with what it is asked for: topic, index, replicas.
fn altered(request: &Request, code: ErrorCode) -> (Response, (String, i32, Option<Vec<i32>>)) {
    let Request::AlterPartitionReassignments(request) = request else { panic!("{request:?}") };
    assert!(request.allow_replication_factor_change);
    let [topic] = &request.topics[..] else { panic!("{request:?}") };
    let [partition] = &topic.partitions[..] else { panic!("{request:?}") };
    let replicas = partition.replicas.as_ref().map(|ids| ids.iter().map(|id| id.0).collect());
    let asked = (topic.name.to_string(), partition.partition_index, replicas);
    let why = StrBytes::from_static_str("so it is");
    let result = ReassignablePartitionResponse::default()
        .with_partition_index(partition.partition_index)
        .with_error_code(code.code())
        .with_error_message((code != ErrorCode::None).then_some(why));
    let topic = ReassignableTopicResponse::default()
        .with_name(topic.name.clone())
        .with_partitions(vec![result]);
    let reply = m::AlterPartitionReassignmentsResponse::default().with_error_message(None);
    (Response::AlterPartitionReassignments(reply.with_responses(vec![topic])), asked)
}

#[test]
fn a_partition_is_moved_once_there_is_a_leader_to_take_it() {
    let mut tries = 0;
    let (out, ended) = run("move t 3 4,1", |request| {
        tries += 1;
        let code = if tries < 3 { ErrorCode::NotController } else { ErrorCode::None };
        let (reply, asked) = altered(request, code);
        assert_eq!(asked, ("t".to_owned(), 3, Some(vec![4, 1])));
        reply
    });
    assert_eq!((ended, tries), (Ok(()), 3));
    assert_eq!(out, "t-3 goes to 4, 1; `status` lists it until it is there\n");
    let (out, ended) =
        run("move t 0 9", |request| altered(request, ErrorCode::InvalidReplicaAssignment).0);
    assert_eq!(out, "");
    assert_eq!(ended.unwrap_err(), "cannot move t-0: INVALID_REPLICA_ASSIGNMENT(39): so it is");
    let (_, ended) = run("move t 0 1", |_| {
        let why = StrBytes::from_static_str("not you");
        let reply = m::AlterPartitionReassignmentsResponse::default()
            .with_error_code(ErrorCode::ClusterAuthorizationFailed.code());
        Response::AlterPartitionReassignments(reply.with_error_message(Some(why)))
    });
    let why = "cannot move t-0: CLUSTER_AUTHORIZATION_FAILED(31): not you";
    assert_eq!(ended.unwrap_err(), why, "of the whole request");
}

#[test]
fn a_move_is_called_off() {
    for (code, expected) in [
        (ErrorCode::None, Ok(())),
        (ErrorCode::NoReassignmentInProgress, Err("t-3 does not move".to_owned())),
        (
            ErrorCode::RequestTimedOut,
            Err("cannot call off the move of t-3: REQUEST_TIMED_OUT(7): so it is".to_owned()),
        ),
    ] {
        let (out, ended) = run("move t 3 --cancel", |request| {
            let (reply, asked) = altered(request, code);
            assert_eq!(asked, ("t".to_owned(), 3, None));
            reply
        });
        assert_eq!(out, if expected.is_ok() { "t-3 stays\n" } else { "" });
        assert_eq!(ended, expected);
    }
}

#[test]
fn a_broker_is_added_where_none_of_that_number_is() {
    let answer = |request: &Request| match request {
        Request::Metadata(_) => Response::Metadata(metadata(3, &[])),
        Request::AddRaftVoter(request) => {
            let listener = &request.listeners[0];
            assert_eq!((request.voter_id, &*listener.host, listener.port), (4, "h4", 10092));
            let reply = m::AddRaftVoterResponse::default().with_error_message(None);
            Response::AddRaftVoter(reply)
        }
        other => panic!("{other:?}"),
    };
    let (out, ended) = run("add 4@h4:10092", answer);
    assert_eq!(ended, Ok(()));
    assert!(out.contains("`node-id = 4`") && out.contains("\"4@h4:10092\""), "{out}");
    assert!(out.contains("tailrace broker --config FILE --join"), "{out}");
    let (out, ended) = run("add 3@h3:10092", answer);
    assert_eq!(out, "");
    assert!(ended.unwrap_err().contains("broker 3 is part of the cluster"));
}

/// A broker's copies go one by one; when no partition is left, a group without any still is.
#[test]
fn a_drain_is_over_when_no_copy_is_left() {
    let mut looks = 0;
    let mut asked = 0;
    let (out, ended) = run("drain 2", |request| match request {
        Request::Metadata(_) => {
            looks += 1;
            let on_it: &[(i32, &[i32], &[i32])] = &[(1, &[1, 2], &[]), (1, &[1, 2], &[])];
            Response::Metadata(metadata(3, &on_it[..2_usize.saturating_sub(looks)]))
        }
        Request::RemoveRaftVoter(_) => {
            asked += 1;
            removed(if asked < 3 { ErrorCode::None } else { ErrorCode::VoterNotFound })
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(ended, Ok(()));
    assert_eq!(
        out,
        "broker 2: 1 partition(s) have a copy there\n\
         broker 2: 0 partition(s) have a copy there\n\
         broker 2 has no copies; `remove 2` takes it out\n"
    );
}

#[test]
fn a_drain_that_takes_too_long_says_what_is_left() {
    let (_, ended) = run("drain 2 --timeout 0", |request| match request {
        Request::Metadata(_) => Response::Metadata(metadata(3, &[(1, &[1, 2], &[])])),
        _ => removed(ErrorCode::None),
    });
    assert_eq!(ended.unwrap_err(), "broker 2 drains still: 1 partition(s) have a copy there");
    let (_, ended) = run("drain 9", |request| match request {
        Request::Metadata(_) => Response::Metadata(metadata(3, &[])),
        _ => removed(ErrorCode::VoterNotFound),
    });
    assert_eq!(ended.unwrap_err(), "the cluster has no broker 9");
}

#[test]
fn a_drain_is_taken_back_by_no_address() {
    for (code, expected) in [
        (ErrorCode::None, Ok(())),
        (ErrorCode::DuplicateVoter, Err("broker 2 does not drain".to_owned())),
        (ErrorCode::InvalidRequest, Err("broker 2 does not drain".to_owned())),
        (
            ErrorCode::RequestTimedOut,
            Err("cannot end the drain of broker 2: REQUEST_TIMED_OUT(7): late".to_owned()),
        ),
    ] {
        let (_, ended) = run("drain 2 --cancel", |request| {
            let Request::AddRaftVoter(request) = request else { panic!("{request:?}") };
            assert!(request.listeners.is_empty() && request.voter_id == 2);
            let late = StrBytes::from_static_str("late");
            let reply = m::AddRaftVoterResponse::default();
            Response::AddRaftVoter(
                reply.with_error_code(code.code()).with_error_message(Some(late)),
            )
        });
        assert_eq!(ended, expected);
    }
}

#[test]
fn a_drained_broker_is_removed_at_once_and_by_another_one() {
    let unregistered = |code: ErrorCode| {
        let drain_first = StrBytes::from_static_str("drain it first");
        let reply = m::UnregisterBrokerResponse::default().with_error_code(code.code());
        Response::UnregisterBroker(reply.with_error_message(Some(drain_first)))
    };
    for code in [ErrorCode::None, ErrorCode::InvalidRequest] {
        let (out, ended) = run("remove 2", |request| match request {
            Request::RemoveRaftVoter(_) => removed(ErrorCode::VoterNotFound),
            Request::Metadata(_) => Response::Metadata(metadata(3, &[])),
            _ => unregistered(code),
        });
        if code == ErrorCode::None {
            assert_eq!(ended, Ok(()));
            assert_eq!(out, "broker 2 is not part of the cluster any more: stop it\n");
        } else {
            let why = "cannot remove broker 2: INVALID_REQUEST(42): drain it first";
            assert_eq!(ended.unwrap_err(), why);
        }
    }
    let (_, ended) = run("remove 1", |request| match request {
        Request::Metadata(_) => Response::Metadata(metadata(1, &[])),
        _ => removed(ErrorCode::VoterNotFound),
    });
    assert_eq!(ended.unwrap_err(), "no broker but 1 answers: one has to go on without it");
}

#[test]
fn a_change_is_asked_for_again_while_nobody_leads() {
    let mut tries = 0;
    let (_, ended) = run("drain 2", |request| match request {
        Request::Metadata(_) => Response::Metadata(metadata(3, &[])),
        _ => {
            tries += 1;
            removed(if tries < 3 { ErrorCode::NotController } else { ErrorCode::VoterNotFound })
        }
    });
    assert_eq!(ended, Ok(()));
}

#[test]
fn a_rebalance_counts_what_moved() {
    let election = |codes: &[ErrorCode]| {
        let result = |code: &ErrorCode| {
            let absent = StrBytes::from_static_str("it is not there");
            PartitionResult::default().with_error_code(code.code()).with_error_message(Some(absent))
        };
        let topic = ReplicaElectionResult::default()
            .with_partition_result(codes.iter().map(result).collect());
        let reply = m::ElectLeadersResponse::default();
        Response::ElectLeaders(reply.with_replica_election_results(vec![topic]))
    };
    let answer = |codes: &'static [ErrorCode]| {
        move |request: &Request| {
            let Request::ElectLeaders(request) = request else { panic!("{request:?}") };
            assert!(request.topic_partitions.is_none() && request.election_type == 0);
            election(codes)
        }
    };
    let (out, ended) = run("rebalance", answer(&[ErrorCode::None, ErrorCode::ElectionNotNeeded]));
    assert_eq!(
        (out.as_str(), ended),
        ("1 partition(s) are led by their first replica now\n", Ok(()))
    );
    let (_, ended) =
        run("rebalance", answer(&[ErrorCode::None, ErrorCode::PreferredLeaderNotAvailable]));
    assert_eq!(
        ended.unwrap_err(),
        "1 partition(s) stay with another leader than their first replica: \
         PREFERRED_LEADER_NOT_AVAILABLE(80): it is not there"
    );
}

/// The error of a status against something that says this and no more.
fn refused_by(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let command = parse(&format!("status --bootstrap {address}")).expect("a command");
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("the command connects");
            let mut request = [0; 4];
            stream.read_exact(&mut request).expect("a request");
            stream.write_all(bytes).expect("sent");
            stream.shutdown(Shutdown::Write).expect("open");
            // What was not read would reset the connection.
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        command.run(&mut Vec::new()).expect_err("no broker")
    });
    error.to_string().replace(&address.to_string(), "ADDRESS")
}

#[test]
fn what_is_no_broker_is_named() {
    let http = refused_by(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(http.starts_with("ADDRESS does not answer as a broker does: "), "{http}");
    assert_eq!(
        refused_by(b""),
        "ADDRESS closed the connection: it is no broker, or has no majority of its cluster to \
         decide that with (`tailrace cluster status` says what it knows)"
    );
    let cut = refused_by(&[0, 0, 0, 6, 0, 0, 0, 1, 0, 0]);
    assert!(cut.starts_with("ADDRESS does not answer as a broker does: "), "{cut}");
    // Correlation id 9, no error, and nothing that it serves.
    let other = refused_by(&[0, 0, 0, 10, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]);
    assert!(other.contains("to another request"), "{other}");
    let nothing = refused_by(&[0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert!(nothing.contains("ADDRESS does not serve Metadata(3)"), "{nothing}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let command = parse(&format!("status --bootstrap {address}")).expect("a command");
    let error = command.run(&mut Vec::new()).expect_err("nobody listens").to_string();
    assert!(error.starts_with(&format!("cannot reach a broker at {address}: ")), "{error}");
}
