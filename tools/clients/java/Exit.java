package org.apache.kafka.common.utils;

/**
 * Lets Kafka's 4.3.1 command lines run on the 4.4 clients: the registry has no newer command lines, and
 * of all classes that they use, 4.4 moved only this one.
 */
public final class Exit {
    private Exit() {}

    public static void exit(int status) {
        org.apache.kafka.common.utils.internals.Exit.exit(status);
    }

    public static void addShutdownHook(String name, Runnable hook) {
        org.apache.kafka.common.utils.internals.Exit.addShutdownHook(name, hook);
    }
}
