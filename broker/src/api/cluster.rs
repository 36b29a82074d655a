//! DescribeCluster and ApiVersions: what this cluster is and what it speaks.

use kafka_wire::api_versions::{ApiVersionsFault, ApiVersionsRequest, ApiVersionsResponse};
use kafka_wire::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_wire::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_wire::{ErrorCode, StrBytes};

use super::metadata::{CLUSTER_OPERATIONS, ClientView};
use crate::cluster::Image;

/// `endpoint_type` of brokers and of controllers; the latter have no endpoints here.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) fn describe_cluster(
    image: &Image,
    view: &ClientView<'_>,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return refused(
                ErrorCode::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
                 type CONTROLLER"
                    .to_owned(),
            );
        }
        other => {
            let message = format!("Unsupported endpoint type {other}");
            return refused(ErrorCode::UnsupportedEndpointType, message);
        }
    }
    let operations =
        if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN };
    DescribeClusterResponse::default()
        .with_error_message(None)
        .with_cluster_id(StrBytes::from_string(image.cluster_id_text()))
        .with_controller_id(BrokerId(view.controller(image).get()))
        .with_brokers(brokers(image))
        .with_cluster_authorized_operations(operations)
}

/// A client that believes to talk to another cluster or broker is told to bootstrap again
/// (KIP-1242).
pub(crate) fn api_versions(
    image: &Image,
    view: &ClientView<'_>,
    version: i16,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    match request.check(version, &image.cluster_id_text(), view.broker.get()) {
        Ok(()) => ApiVersionsResponse::supported(),
        Err(ApiVersionsFault::OtherBroker) => {
            ApiVersionsResponse::failed(ErrorCode::RebootstrapRequired)
        }
        Err(
            ApiVersionsFault::SoftwareName
            | ApiVersionsFault::SoftwareVersion
            | ApiVersionsFault::HalfIdentity,
        ) => ApiVersionsResponse::failed(ErrorCode::InvalidRequest),
    }
}

fn brokers(image: &Image) -> Vec<DescribeClusterBroker> {
    image
        .brokers()
        .map(|(endpoint, rack)| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(endpoint.broker.get()))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
                .with_rack(rack.map(|rack| StrBytes::from_string(rack.to_owned())))
        })
        .collect()
}

fn refused(code: ErrorCode, message: String) -> DescribeClusterResponse {
    DescribeClusterResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(message)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;
    use kafka_protocol::protocol::Encodable;
    use model::{LogIndex, NodeId};
    use uuid::Uuid;

    use super::*;
    use crate::cluster::{Cluster, Endpoint, Node, Shape, bootstrap};

    const VIEW: ClientView<'_> = ClientView {
        broker: NodeId::new(0),
        auto_create: true,
        leader: &|_| None,
        is_up: &|_| true,
    };

    fn image() -> Arc<Image> {
        let node = NodeId::new(0);
        let endpoint = Endpoint { broker: node, host: "h".into(), port: 9092, shard: None };
        let mut cluster = Cluster::new(Arc::default());
        let shape = Shape { shard_count: 1, groups_per_shard: 1 };
        let own = Node { id: node, endpoints: vec![endpoint], rack: Some("r".into()) };
        let commands = bootstrap(Uuid::from_u128(0xc1), own, &[node], shape);
        for (index, command) in (1..).zip(commands) {
            cluster.apply(LogIndex::new(index), command);
        }
        cluster.image()
    }

    #[test]
    fn the_cluster_is_described_to_whoever_asks_for_brokers() {
        let request = DescribeClusterRequest::default();
        let reply = describe_cluster(&image(), &VIEW, &request);
        for version in 0..=2 {
            reply.encode(&mut BytesMut::new(), version).expect("encodes");
        }
        assert_eq!((reply.error_code, reply.error_message.as_ref()), (0, None));
        assert_eq!(reply.cluster_id.as_str(), "AAAAAAAAAAAAAAAAAAAAwQ");
        assert_eq!((reply.controller_id.0, reply.brokers.len()), (0, 1));
        assert_eq!(reply.brokers[0].rack.as_deref(), Some("r"));
        assert_eq!(reply.cluster_authorized_operations, i32::MIN);
        for (endpoint_type, code) in [
            (CONTROLLERS, ErrorCode::MismatchedEndpointType),
            (0, ErrorCode::UnsupportedEndpointType),
            (3, ErrorCode::UnsupportedEndpointType),
        ] {
            let request = DescribeClusterRequest::default().with_endpoint_type(endpoint_type);
            let reply = describe_cluster(&image(), &VIEW, &request);
            assert_eq!(reply.error_code, code.code());
            reply.encode(&mut BytesMut::new(), 1).expect("encodes");
        }
    }

    #[test]
    fn a_client_of_another_cluster_or_broker_bootstraps_again() {
        let request = |cluster: Option<&'static str>, node_id, name| ApiVersionsRequest {
            client_software_name: StrBytes::from_static_str(name),
            client_software_version: StrBytes::from_static_str("1.0"),
            cluster_id: cluster.map(StrBytes::from_static_str),
            node_id,
        };
        let ours = Some("AAAAAAAAAAAAAAAAAAAAwQ");
        for (request, expected) in [
            (request(None, -1, "java"), ErrorCode::None),
            (request(ours, 0, "java"), ErrorCode::None),
            (request(ours, 1, "java"), ErrorCode::RebootstrapRequired),
            (request(Some("other"), 0, "java"), ErrorCode::RebootstrapRequired),
            (request(ours, -1, "java"), ErrorCode::InvalidRequest),
            (request(None, 0, "java"), ErrorCode::InvalidRequest),
            (request(None, -1, "-java"), ErrorCode::InvalidRequest),
        ] {
            let reply = api_versions(&image(), &VIEW, 5, &request);
            assert_eq!(reply.error_code, expected, "{request:?}");
            assert_eq!(reply.api_keys.is_empty(), expected != ErrorCode::None);
        }
    }
}
