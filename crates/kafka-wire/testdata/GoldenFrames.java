// Writes frames.txt and batches.txt with Kafka's own classes. Run by hand, when an API or version
// is added; needs kafka-clients 4.4.0 and its codecs on the class path:
//
//   java -cp 'kafka-clients-4.4.0.jar:...' GoldenFrames.java frames > frames.txt
//   java -cp 'kafka-clients-4.4.0.jar:...' GoldenFrames.java batches > batches.txt
//
// Every field that a version can carry gets a value of its own; arrays get one element.

import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;

public class GoldenFrames {
    static final int[][] APIS = {
        {0, 3, 13}, {1, 4, 18}, {2, 1, 11}, {3, 0, 13}, {8, 2, 10}, {9, 1, 10}, {10, 0, 6},
        {11, 0, 9}, {12, 0, 4}, {13, 0, 5}, {14, 0, 5}, {18, 0, 5}, {19, 2, 7}, {20, 1, 6},
        {21, 0, 2}, {22, 0, 5}, {23, 2, 4}, {32, 1, 4}, {33, 0, 2}, {35, 1, 4}, {43, 0, 2},
        {44, 0, 1}, {45, 0, 1}, {46, 0, 0}, {60, 0, 2}, {64, 0, 0}, {80, 0, 0}, {81, 0, 0},
    };
    // Of the collection's own, for replicas of the metadata log, or gone since 4.0.
    static final Set<String> LEFT_OUT =
        Set.of("_unknownTaggedFields", "prev", "next", "snapshotId", "zkMigrationReady");
    static int counter;

    public static void main(String[] args) throws Exception {
        if (args[0].equals("batches")) {
            batches();
            return;
        }
        for (int[] api : APIS) {
            ApiMessageType type = ApiMessageType.fromApiKey((short) api[0]);
            for (short version = (short) api[1]; version <= api[2]; version++) {
                RequestHeaderData header = new RequestHeaderData().setRequestApiKey(type.apiKey())
                    .setRequestApiVersion(version).setCorrelationId(77).setClientId("golden");
                print("request", type, version, header, type.requestHeaderVersion(version),
                    type.newRequest());
                print("response", type, version, new ResponseHeaderData().setCorrelationId(77),
                    type.responseHeaderVersion(version), type.newResponse());
            }
        }
    }

    static void print(String kind, ApiMessageType type, short version, ApiMessage header,
            short headerVersion, ApiMessage body) throws Exception {
        counter = 0;
        fill(body, body, version);
        System.out.println(kind + " " + type.apiKey() + " " + version + " "
            + hex(bytes(header, headerVersion)) + hex(bytes(body, version)));
    }

    static byte[] bytes(Message message, short version) {
        ByteBuffer buffer = MessageUtil.toByteBufferAccessor(message, version).buffer();
        byte[] out = new byte[buffer.remaining()];
        buffer.get(out);
        return out;
    }

    static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }

    static void fill(Object object, Message top, short version) throws Exception {
        for (Field field : object.getClass().getDeclaredFields()) {
            if (Modifier.isStatic(field.getModifiers()) || LEFT_OUT.contains(field.getName())) {
                continue;
            }
            field.setAccessible(true);
            Object before = field.get(object);
            List<Object> inner = new ArrayList<>();
            field.set(object, sample(field, inner));
            try {
                bytes(top, version);
            } catch (RuntimeException unsupported) {
                field.set(object, before);
                continue;
            }
            for (Object element : inner) {
                fill(element, top, version);
            }
        }
    }

    static Object sample(Field field, List<Object> inner) throws Exception {
        Class<?> type = field.getType();
        int n = ++counter;
        if (type == boolean.class) return true;
        if (type == byte.class) return (byte) 1;
        if (type == short.class) return field.getName().equals("errorCode") ? (short) 3 : (short) n;
        if (type == int.class) return n;
        if (type == long.class) return 1000L + n;
        if (type == String.class) return "s" + n;
        if (type == Uuid.class) return new Uuid(7, n);
        if (type == byte[].class) return new byte[] {1, 2, (byte) n};
        if (type == ByteBuffer.class) return ByteBuffer.wrap(new byte[] {3, 4, (byte) n});
        if (type == BaseRecords.class) return records(Compression.NONE);
        if (type == List.class) {
            Class<?> element =
                (Class<?>) ((ParameterizedType) field.getGenericType()).getActualTypeArguments()[0];
            List<Object> list = new ArrayList<>();
            if (element == Integer.class) list.add(n);
            else if (element == String.class) list.add("e" + n);
            else if (element == Uuid.class) list.add(new Uuid(8, n));
            else {
                Object value = element.getDeclaredConstructor().newInstance();
                inner.add(value);
                list.add(value);
            }
            return list;
        }
        Object value = type.getDeclaredConstructor().newInstance();
        if (value instanceof Collection) {
            String name = type.getName();
            Object element = Class.forName(name.substring(0, name.length() - "Collection".length()))
                .getDeclaredConstructor().newInstance();
            inner.add(element);
            @SuppressWarnings("unchecked")
            Collection<Object> collection = (Collection<Object>) value;
            collection.add(element);
            return value;
        }
        inner.add(value);
        return value;
    }

    static MemoryRecords records(Compression compression) {
        byte[] key = "key".getBytes(StandardCharsets.UTF_8);
        byte[] value = "value ".repeat(20).getBytes(StandardCharsets.UTF_8);
        Header[] headers = {
            new RecordHeader("h", new byte[] {1}), new RecordHeader("h", null),
        };
        return MemoryRecords.withRecords(compression,
            new SimpleRecord(1_700_000_000_000L, key, value, headers),
            new SimpleRecord(1_700_000_000_500L, null, value, new Header[0]),
            new SimpleRecord(1_700_000_000_250L, key, null, new Header[0]));
    }

    static void batches() {
        Compression[] all = {
            Compression.NONE, Compression.gzip().build(), Compression.snappy().build(),
            Compression.lz4().build(), Compression.zstd().build(),
        };
        for (Compression compression : all) {
            ByteBuffer buffer = records(compression).buffer();
            byte[] out = new byte[buffer.remaining()];
            buffer.get(out);
            System.out.println(compression.type().name + " " + hex(out));
        }
    }
}
