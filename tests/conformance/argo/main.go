// What Argo CD's application controller does with the manifests of one Application, by Argo CD's own
// engine (cluster cache, sync, diff, health), against any kubeconfig and without a cluster of its own.
//
//	argo sync NAME client|server   apply what standard input holds, delete what has left it
//	argo diff NAME client|server   which objects are OutOfSync, by the comparison that goes with it
//	argo health SCRIPT             what each object of standard input is, by a health check in Lua as
//	                               Argo CD takes it from its settings ("": by its own checks alone)
//
// `client` and `server` are the two ways that Argo CD applies: as `kubectl apply` does, its default,
// and with the option ServerSideApply=true.
//
// Manifests come on standard input, KUBECONFIG says where to; one JSON document goes out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/engine"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/health"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/utils/tracing"
	"github.com/go-logr/logr"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	manager  = "argocd-controller"
	tracking = "argocd.argoproj.io/tracking-id"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	objects, err := kube.SplitYAML(text)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	var said map[string]string
	switch {
	case len(arguments) == 3 && arguments[0] == "sync":
		said, err = synchronise(ctx, config, objects, arguments[1], arguments[2] == "server")
	case len(arguments) == 3 && arguments[0] == "diff":
		said, err = compare(ctx, config, objects, arguments[1], arguments[2] == "server")
	case len(arguments) == 2 && arguments[0] == "health":
		said, err = assess(ctx, config, objects, arguments[1])
	default:
		err = errors.New("sync NAME client|server, diff NAME client|server, or health SCRIPT")
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

// An object's mark: whose it is, and which object it was made for, so that a copy is nobody's.
func mark(name string, key kube.ResourceKey) string {
	return fmt.Sprintf("%s:%s/%s:%s/%s", name, key.Group, key.Kind, key.Namespace, key.Name)
}

func isMarked(name string) func(*cache.Resource) bool {
	return func(resource *cache.Resource) bool {
		return resource.Info == mark(name, resource.ResourceKey())
	}
}

func marked(objects []*unstructured.Unstructured, name string) {
	for _, each := range objects {
		annotations := each.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[tracking] = mark(name, kube.GetResourceKey(each))
		each.SetAnnotations(annotations)
	}
}

// All kinds that the server says it has, listed and watched.
func cluster(config *rest.Config) cache.ClusterCache {
	return cache.NewClusterCache(config,
		cache.SetLogr(logr.Discard()),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			found := object.GetAnnotations()[tracking]
			return found, found != ""
		}))
}

func synchronise(
	ctx context.Context, config *rest.Config, objects []*unstructured.Unstructured,
	name string, serverSide bool,
) (map[string]string, error) {
	marked(objects, name)
	syncing := engine.NewEngine(config, cluster(config), engine.WithLogr(logr.Discard()))
	stop, err := syncing.Run()
	if err != nil {
		return nil, err
	}
	defer stop()
	results, err := syncing.Sync(ctx, objects, isMarked(name), "revision", "default",
		sync.WithLogr(logr.Discard()),
		sync.WithPrune(true),
		sync.WithManifestValidation(true),
		sync.WithServerSideApply(serverSide),
		sync.WithServerSideApplyManager(manager))
	said := map[string]string{}
	for _, each := range results {
		said[each.ResourceKey.Kind+"/"+each.ResourceKey.Name] = string(each.Status) + ": " + each.Message
	}
	return said, err
}

func compare(
	ctx context.Context, config *rest.Config, objects []*unstructured.Unstructured,
	name string, serverSide bool,
) (map[string]string, error) {
	marked(objects, name)
	live := cluster(config)
	if err := live.EnsureSynced(); err != nil {
		return nil, err
	}
	defer live.Invalidate()
	managed, err := live.GetManagedLiveObjs(objects, isMarked(name))
	if err != nil {
		return nil, err
	}
	pairs := sync.Reconcile(objects, managed, "default", live)
	options := []diff.Option{diff.WithLogr(logr.Discard())}
	if serverSide {
		kubectl := &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}}
		_, parser, err := kubectl.LoadOpenAPISchema(config)
		if err != nil {
			return nil, err
		}
		applier, stop, err := kubectl.ManageServerSideDiffDryRuns(config)
		if err != nil {
			return nil, err
		}
		defer stop()
		options = append(options,
			diff.WithServerSideDiff(true),
			diff.WithServerSideDryRunner(diff.NewK8sServerSideDryRunner(applier)),
			diff.WithManager(manager),
			diff.WithGVKParser(parser))
	}
	compared, err := diff.DiffArray(ctx, pairs.Target, pairs.Live, options...)
	if err != nil {
		return nil, err
	}
	said := map[string]string{}
	for n, each := range compared.Diffs {
		object := pairs.Target[n]
		if object == nil {
			object = pairs.Live[n]
		}
		verdict := "Synced"
		if each.Modified {
			verdict = "OutOfSync"
		}
		said[object.GetKind()+"/"+object.GetName()] = verdict
	}
	return said, nil
}

func assess(
	ctx context.Context, config *rest.Config, objects []*unstructured.Unstructured, script string,
) (map[string]string, error) {
	kubectl := &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}}
	var override health.HealthOverride
	if script != "" {
		text, err := os.ReadFile(script)
		if err != nil {
			return nil, err
		}
		override = check(text)
	}
	said := map[string]string{}
	for _, each := range objects {
		object, err := kubectl.GetResource(
			ctx, config, each.GroupVersionKind(), each.GetName(), each.GetNamespace())
		if err != nil {
			return nil, err
		}
		found, err := health.GetResourceHealth(object, override)
		if err != nil {
			return nil, err
		}
		// What has no health of its own does not count in that of the Application.
		verdict := ""
		if found != nil {
			verdict = string(found.Status)
		}
		said[object.GetKind()+"/"+object.GetName()] = verdict
	}
	return said, nil
}

// A health check as it stands in argocd-cm: `obj` in, a table with status and message out.
type check []byte

func (script check) GetResourceHealth(object *unstructured.Unstructured) (*health.HealthStatus, error) {
	state := lua.NewState()
	defer state.Close()
	state.SetGlobal("obj", inLua(state, object.Object))
	if err := state.DoString(string(script)); err != nil {
		return nil, err
	}
	said, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		return nil, errors.New("the health check returned no table")
	}
	return &health.HealthStatus{
		Status:  health.HealthStatusCode(lua.LVAsString(said.RawGetString("status"))),
		Message: lua.LVAsString(said.RawGetString("message")),
	}, nil
}

func inLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, each := range value {
			table.RawSetString(key, inLua(state, each))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, each := range value {
			table.Append(inLua(state, each))
		}
		return table
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	}
	return lua.LNil
}
