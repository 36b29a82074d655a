//! OffsetCommit and OffsetFetch v10, written by hand: topics by id, which the codec lacks in
//! requests (KIP-848). Everything else is as in v9.

use kafka_protocol::messages as m;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};

use crate::reader::{Fault, Reader};
use crate::writer::{TooLong, Writer};

/// The version of both APIs that this file is about.
pub(crate) const VERSION: i16 = 10;

pub(crate) fn read_commit(mut reader: Reader) -> Result<m::OffsetCommitRequest, Fault> {
    let mut request = m::OffsetCommitRequest::default();
    request.group_id = reader.string()?.into();
    request.generation_id_or_member_epoch = reader.i32()?;
    request.member_id = reader.string()?;
    request.group_instance_id = reader.nullable_string()?;
    request.topics = reader.array(|reader| {
        let mut topic = OffsetCommitRequestTopic::default();
        topic.topic_id = reader.uuid()?;
        topic.partitions = reader.array(|reader| {
            let mut partition = OffsetCommitRequestPartition::default();
            partition.partition_index = reader.i32()?;
            partition.committed_offset = reader.i64()?;
            partition.committed_leader_epoch = reader.i32()?;
            partition.committed_metadata = reader.nullable_string()?;
            reader.skip_tags()?;
            Ok(partition)
        })?;
        reader.skip_tags()?;
        Ok(topic)
    })?;
    reader.skip_tags()?;
    Ok(request)
}

pub(crate) fn read_fetch(mut reader: Reader) -> Result<m::OffsetFetchRequest, Fault> {
    let mut request = m::OffsetFetchRequest::default();
    request.groups = reader.array(|reader| {
        let mut group = OffsetFetchRequestGroup::default();
        group.group_id = reader.string()?.into();
        group.member_id = reader.nullable_string()?;
        group.member_epoch = reader.i32()?;
        group.topics = reader.nullable_array(|reader| {
            let mut topic = OffsetFetchRequestTopics::default();
            topic.topic_id = reader.uuid()?;
            topic.partition_indexes = reader.array(Reader::i32)?;
            reader.skip_tags()?;
            Ok(topic)
        })?;
        reader.skip_tags()?;
        Ok(group)
    })?;
    request.require_stable = reader.bool()?;
    reader.skip_tags()?;
    Ok(request)
}

pub(crate) fn write_commit(
    request: &m::OffsetCommitRequest,
    writer: &mut Writer,
) -> Result<(), TooLong> {
    writer.string(&request.group_id)?;
    writer.i32(request.generation_id_or_member_epoch);
    writer.string(&request.member_id)?;
    writer.nullable_string(request.group_instance_id.as_ref())?;
    writer.length(request.topics.len())?;
    for topic in &request.topics {
        writer.uuid(topic.topic_id);
        writer.length(topic.partitions.len())?;
        for partition in &topic.partitions {
            writer.i32(partition.partition_index);
            writer.i64(partition.committed_offset);
            writer.i32(partition.committed_leader_epoch);
            writer.nullable_string(partition.committed_metadata.as_ref())?;
            writer.no_tags();
        }
        writer.no_tags();
    }
    writer.no_tags();
    Ok(())
}

pub(crate) fn write_fetch(
    request: &m::OffsetFetchRequest,
    writer: &mut Writer,
) -> Result<(), TooLong> {
    writer.length(request.groups.len())?;
    for group in &request.groups {
        writer.string(&group.group_id)?;
        writer.nullable_string(group.member_id.as_ref())?;
        writer.i32(group.member_epoch);
        match &group.topics {
            None => writer.null_length(),
            Some(topics) => {
                writer.length(topics.len())?;
                for topic in topics {
                    writer.uuid(topic.topic_id);
                    writer.length(topic.partition_indexes.len())?;
                    topic.partition_indexes.iter().for_each(|index| writer.i32(*index));
                    writer.no_tags();
                }
            }
        }
        writer.no_tags();
    }
    writer.bool(request.require_stable);
    writer.no_tags();
    Ok(())
}
