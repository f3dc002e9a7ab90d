// What Flux's kustomize-controller does with the manifests of one Kustomization, by Flux's own apply
// library and kstatus, against any kubeconfig and without a cluster of its own.
//
//	flux sync NAME NAMESPACE INVENTORY   apply what standard input holds, delete what has left it
//	flux wait TIMEOUT                    until all of standard input is Current, as `wait: true` does
//	flux status                          what kstatus makes of each object of standard input now
//
// Manifests come on standard input, KUBECONFIG says where to; one JSON document goes out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const group = "kustomize.toolkit.fluxcd.io"

// An object as the inventory of a Kustomization keeps it.
type entry struct {
	ID      string `json:"id"`
	Version string `json:"v"`
}

func main() {
	log.SetLogger(logr.Discard())
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	objects, err := utils.ReadObjects(os.Stdin)
	if err != nil {
		return err
	}
	cluster, manager, err := connect()
	if err != nil {
		return err
	}
	switch {
	case len(arguments) == 4 && arguments[0] == "sync":
		changes, err := sync(ctx, manager, objects, arguments[1], arguments[2], arguments[3])
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(changes.ToMap())
	case len(arguments) == 2 && arguments[0] == "wait":
		timeout, err := time.ParseDuration(arguments[1])
		if err != nil {
			return err
		}
		return manager.Wait(objects, ssa.WaitOptions{Interval: time.Second / 5, Timeout: timeout})
	case len(arguments) == 1 && arguments[0] == "status":
		found, err := statuses(ctx, cluster, objects)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(found)
	}
	return errors.New("sync NAME NAMESPACE INVENTORY, wait TIMEOUT, or status")
}

func connect() (client.Client, *ssa.ResourceManager, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, nil, err
	}
	cluster, err := client.New(config, client.Options{})
	if err != nil {
		return nil, nil, err
	}
	poller := polling.NewStatusPoller(cluster, cluster.RESTMapper(), polling.Options{})
	owner := ssa.Owner{Field: "kustomize-controller", Group: group}
	return cluster, ssa.NewResourceManager(cluster, poller, owner), nil
}

// sync applies the objects and then deletes those that the inventory has and the objects have not.
func sync(
	ctx context.Context, manager *ssa.ResourceManager, objects []*unstructured.Unstructured,
	name, namespace, inventory string,
) (*ssa.ChangeSet, error) {
	manager.SetOwnerLabels(objects, name, namespace)
	if err := normalize.UnstructuredList(objects); err != nil {
		return nil, err
	}
	options := ssa.DefaultApplyOptions()
	options.Cleanup = undoing()
	changes, err := manager.ApplyAllStaged(ctx, objects, options)
	if err != nil {
		return nil, err
	}
	left, err := whatLeft(inventory, changes)
	if err != nil {
		return nil, err
	}
	if err := remember(inventory, changes); err != nil {
		return nil, err
	}
	deleted, err := manager.DeleteAll(ctx, left, ssa.DeleteOptions{
		PropagationPolicy: metav1.DeletePropagationBackground,
		Inclusions:        manager.GetOwnerLabels(name, namespace),
	})
	if err != nil {
		return nil, err
	}
	changes.Append(deleted.Entries)
	return changes, nil
}

// undoing makes Flux take over what kubectl wrote, so that its next apply removes what it does not
// have: the setting of kustomize-controller, and without it a field added by hand would stay.
func undoing() ssa.ApplyCleanupOptions {
	apply, update := metav1.ManagedFieldsOperationApply, metav1.ManagedFieldsOperationUpdate
	return ssa.ApplyCleanupOptions{
		Annotations: []string{corev1.LastAppliedConfigAnnotation},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: apply},
			{Name: "kubectl", OperationType: update},
			{Name: "before-first-apply", OperationType: update},
			{Name: "kustomize-controller", OperationType: update},
		},
	}
}

func whatLeft(inventory string, changes *ssa.ChangeSet) ([]*unstructured.Unstructured, error) {
	text, err := os.ReadFile(inventory)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var known []entry
	if err := json.Unmarshal(text, &known); err != nil {
		return nil, err
	}
	applied := changes.ToObjMetadataSet()
	var left []*unstructured.Unstructured
	for _, each := range known {
		id, err := object.ParseObjMetadata(each.ID)
		if err != nil {
			return nil, err
		}
		if !applied.Contains(id) {
			gone := &unstructured.Unstructured{}
			gone.SetGroupVersionKind(id.GroupKind.WithVersion(each.Version))
			gone.SetName(id.Name)
			gone.SetNamespace(id.Namespace)
			left = append(left, gone)
		}
	}
	return left, nil
}

func remember(inventory string, changes *ssa.ChangeSet) error {
	entries := make([]entry, 0, len(changes.Entries))
	for _, change := range changes.Entries {
		entries = append(entries, entry{change.ObjMetadata.String(), change.GroupVersion})
	}
	text, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	return os.WriteFile(inventory, text, 0o600)
}

func statuses(
	ctx context.Context, cluster client.Client, objects []*unstructured.Unstructured,
) (map[string]status.Status, error) {
	found := map[string]status.Status{}
	for _, each := range objects {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(each), each); err != nil {
			return nil, err
		}
		result, err := status.Compute(each)
		if err != nil {
			return nil, err
		}
		found[utils.FmtUnstructured(each)] = result.Status
	}
	return found, nil
}
