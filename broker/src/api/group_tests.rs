//! Each API in each version: what is asked of the coordinator, and that every response encodes.

use bytes::Bytes;
use kafka_wire::ApiKey;
use kafka_wire::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_wire::messages::leave_group_request::MemberIdentity;

use super::*;
use crate::api::offsets::KnownTopic;

struct NoTopics;

impl TopicLookup for NoTopics {
    fn by_name(&self, _: &str) -> Option<KnownTopic> {
        None
    }

    fn by_id(&self, _: uuid::Uuid) -> Option<KnownTopic> {
        None
    }
}

fn header(api_key: ApiKey, api_version: i16) -> RequestHeader {
    let client_id = Some(StrBytes::from_static_str("client"));
    RequestHeader { api_key, api_version, correlation_id: 1, client_id }
}

fn plan(header: &RequestHeader, request: Request) -> (GroupPlan, GroupRequest) {
    let mut plan = GroupPlan::new(header, "/h", &NoTopics, request).expect("a group API");
    let ask = plan.take_asks().remove(0);
    (plan, ask)
}

fn respond(header: &RequestHeader, plan: GroupPlan, answer: GroupResponse) -> Response {
    let response = plan.respond(vec![answer], &NoTopics);
    let encoded = encodes(header, response.clone());
    assert!(encoded, "v{} does not encode: {response:?}", header.api_version);
    response
}

fn encodes(header: &RequestHeader, response: Response) -> bool {
    kafka_wire::encode(header, response).is_ok()
}

fn joined() -> JoinedGroup {
    JoinedGroup {
        generation: 3,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        leader_id: "m".into(),
        member_id: "m".into(),
        skip_assignment: true,
        members: vec![JoinedMember {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            metadata: Bytes::from_static(b"x"),
        }],
    }
}

#[test]
fn join_group_by_version() {
    for version in 0..=9 {
        let header = header(ApiKey::JoinGroup, version);
        let mut request = JoinGroupRequest::default()
            .with_group_id(StrBytes::from_static_str("g").into())
            .with_session_timeout_ms(9_000)
            .with_protocols(vec![JoinGroupRequestProtocol::default()]);
        if version >= 1 {
            request.rebalance_timeout_ms = 70_000;
        }
        let (plan, ask) = plan(&header, Request::JoinGroup(request));
        let Operation::Join(join) = ask.operation else { panic!("not a join") };
        assert_eq!(join.rebalance_timeout_ms, if version == 0 { 9_000 } else { 70_000 });
        assert_eq!(join.member_id_required, version >= 4);
        assert_eq!((&*join.client_id, &*join.client_host), ("client", "/h"));
        let Response::JoinGroup(good) = respond(&header, plan, GroupResponse::Join(Ok(joined())))
        else {
            panic!("not a join");
        };
        assert_eq!((good.generation_id, good.members.len()), (3, 1));
        assert_eq!(good.skip_assignment, version >= 9);
    }
}

#[test]
fn a_refused_join_has_an_empty_name_and_from_version_7_none() {
    for version in 0..=9 {
        let header = header(ApiKey::JoinGroup, version);
        let (plan, _) = plan(&header, Request::JoinGroup(JoinGroupRequest::default()));
        let refused =
            JoinRefused { error: GroupError::MemberIdRequired, member_id: "given".into() };
        let Response::JoinGroup(bad) = respond(&header, plan, GroupResponse::Join(Err(refused)))
        else {
            panic!("not a join");
        };
        assert_eq!((bad.error_code, bad.generation_id, bad.member_id.as_str()), (79, -1, "given"));
        assert_eq!(bad.protocol_name.as_ref().map(StrBytes::as_str), (version < 7).then_some(""));
        assert_eq!(bad.protocol_type, None);
    }
}

#[test]
fn sync_group_names_its_protocol_from_version_5() {
    for version in 0..=5 {
        let header = header(ApiKey::SyncGroup, version);
        let (plan, ask) = plan(&header, Request::SyncGroup(SyncGroupRequest::default()));
        let Operation::Sync(sync) = ask.operation else { panic!("not a sync") };
        assert_eq!(sync.protocol.as_deref(), (version >= 5).then_some(""));
        let synced = SyncedGroup {
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            assignment: Bytes::from_static(b"a"),
        };
        let Response::SyncGroup(good) = respond(&header, plan, GroupResponse::Sync(Ok(synced)))
        else {
            panic!("not a sync");
        };
        assert_eq!((good.error_code, &good.assignment[..]), (0, &b"a"[..]));
    }
}

#[test]
fn leave_group_has_one_member_or_a_list() {
    for version in 0..=5 {
        let header = header(ApiKey::LeaveGroup, version);
        let mut request = LeaveGroupRequest::default();
        if version < 3 {
            request.member_id = StrBytes::from_static_str("m");
        } else {
            let member = MemberIdentity::default().with_member_id(StrBytes::from_static_str("m"));
            request.members = vec![member];
        }
        let (plan, ask) = plan(&header, Request::LeaveGroup(request));
        let Operation::Leave(leave) = ask.operation else { panic!("not a leave") };
        assert_eq!(&*leave.members[0].member_id, "m");
        let left =
            MemberLeft { member: leave.members[0].clone(), result: Err(GroupError::UnknownMember) };
        let Response::LeaveGroup(bad) =
            respond(&header, plan, GroupResponse::Leave(Ok(vec![left])))
        else {
            panic!("not a leave");
        };
        let in_list = bad.members.first().map(|member| member.error_code);
        let expected = if version < 3 { (25, None) } else { (0, Some(25)) };
        assert_eq!((bad.error_code, in_list), expected);
    }
}

#[test]
fn heartbeats_and_answers_that_went_astray() {
    for version in 0..=4 {
        let header = header(ApiKey::Heartbeat, version);
        for (answer, code) in [
            (GroupResponse::Heartbeat(Ok(())), 0),
            (GroupResponse::Heartbeat(Err(GroupError::RebalanceInProgress)), 27),
            (GroupResponse::Sync(Err(GroupError::UnknownMember)), 15),
        ] {
            let (plan, _) = plan(&header, Request::Heartbeat(HeartbeatRequest::default()));
            let Response::Heartbeat(found) = respond(&header, plan, answer) else { panic!() };
            assert_eq!(found.error_code, code);
        }
    }
}

#[test]
fn find_coordinator_answers_each_key() {
    for version in 0..=6 {
        let key = StrBytes::from_static_str;
        let mut request = FindCoordinatorRequest::default();
        if version >= 4 {
            request.coordinator_keys = vec![key("here"), key("nowhere")];
        } else {
            request.key = key("here");
        }
        let mut lookup = |kind, key: &str| {
            assert_eq!(kind, CoordinatorKind::Group);
            let address = CoordinatorAddress { node_id: 2, host: "h".into(), port: 9092 };
            if key == "here" { Ok(address) } else { Err(GroupError::CoordinatorNotAvailable) }
        };
        let found = find_coordinator(version, &request, &mut lookup);
        if version >= 4 {
            let [here, nowhere] = &found.coordinators[..] else { panic!("{found:?}") };
            assert_eq!((here.node_id.0, here.port, here.error_code), (2, 9092, 0));
            assert_eq!((nowhere.node_id.0, nowhere.port, nowhere.error_code), (-1, -1, 15));
        } else {
            assert_eq!((found.node_id.0, found.port, found.error_code), (2, 9092, 0));
        }
        let header = header(ApiKey::FindCoordinator, version);
        assert!(encodes(&header, Response::FindCoordinator(found)), "v{version}");
        request.key_type = 2;
        if version < 6 {
            let mut never = |_, _: &str| panic!("version {version} knows no share groups");
            let refused = find_coordinator(version, &request, &mut never);
            let first = refused.coordinators.first().map_or(refused.error_code, |c| c.error_code);
            assert_eq!(first, 42);
        }
    }
}
