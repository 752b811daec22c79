import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;

import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/** Runs one node of Elasticsearch's core. Arguments: home directory, data directory, HTTP port, transport port. */
public class Launch {
    public static void main(String[] arguments) throws Exception {
        var settings = Settings.builder()
            .put("path.home", arguments[0])
            .put("path.data", arguments[1])
            .put("http.port", arguments[2])
            .put("transport.port", arguments[3])
            .put("network.host", "127.0.0.1")
            .put("discovery.type", "single-node")
            .put("node.store.allow_mmap", false)
            // A nearly full disk of the machine must not stop the tests.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        LogConfigurator.configureWithoutConfig(settings);
        var environment = InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "node");
        var modules = PluginsLoader.loadModulesBundles(environment.modulesDir(), false);
        new Node(environment, PluginsLoader.createPluginsLoader(modules, new HashSet<>(), new HashMap<>())).start();
        Thread.currentThread().join();
    }
}
