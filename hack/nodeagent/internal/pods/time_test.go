// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// fakePod is one that an API server of fakes knows.
func fakePod(dir string) (*pod, *fake.Clientset) {
	obj := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"},
		Spec:       corev1.PodSpec{ServiceAccountName: "sa", Containers: []corev1.Container{{Name: "c"}}},
	}
	client := fake.NewClientset(obj)
	n := &Node{client: client, addresses: []string{"192.0.2.1"}, dir: dir, log: slog.New(slog.DiscardHandler)}
	return newPod(n, obj), client
}

// TestKeepFresh is in a time of its own: tokens that are good for 100 s are
// renewed after 80, and again after 10 where that fails.
func TestKeepFresh(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p, client := fakePod(dir)
		asked := 0
		client.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
			r := a.(clienttesting.CreateAction).GetObject().(*authv1.TokenRequest)
			if b := r.Spec.BoundObjectRef; a.GetSubresource() != "token" || b == nil || b.UID != "u" || b.Kind != "Pod" {
				t.Errorf("asked for %s, bound to %v; want a token bound to the pod", a.GetSubresource(), b)
			}
			if asked++; asked == 3 {
				return true, nil, errors.New("not now")
			}
			r.Status = authv1.TokenRequestStatus{Token: fmt.Sprint(asked), ExpirationTimestamp: metav1.NewTime(time.Now().Add(100 * time.Second))}
			return true, r, nil
		})
		v := &corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
		}}}
		path, expires, err := p.volume(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		go p.keepFresh(t.Context(), v, expires)
		began := time.Now()
		for _, c := range []struct {
			at   time.Duration
			want string
		}{
			{79 * time.Second, "1"},
			{81 * time.Second, "2"},
			{161 * time.Second, "2"}, // the third was refused
			{169 * time.Second, "2"},
			{171 * time.Second, "4"},
			{249 * time.Second, "4"},
			{251 * time.Second, "5"},
		} {
			time.Sleep(c.at - time.Since(began))
			synctest.Wait()
			if b, err := os.ReadFile(filepath.Join(path, "token")); err != nil || string(b) != c.want {
				t.Errorf("after %v the token is %q, %v; want %q", c.at, b, err, c.want)
			}
		}
	})
}

// TestBackOff is in a time of its own: when a container that ends after a
// second is started again, and what its status says until then.
func TestBackOff(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p, _ := fakePod(dir)
		c := p.containers[0]
		began := time.Now()
		var starts []string
		once := func(context.Context) error {
			p.mu.Lock()
			reason := ""
			if w := c.status.State.Waiting; w != nil {
				reason = w.Reason
			}
			starts = append(starts, fmt.Sprintf("%v %d %s", time.Since(began), c.status.RestartCount, reason))
			c.status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
			p.mu.Unlock()
			switch len(starts) {
			case 4:
				return errors.New("it does not start")
			case 9:
				time.Sleep(resetBackoff)
			case 11:
				p.stop(0)
			}
			time.Sleep(time.Second)
			return nil
		}
		c.run(t.Context(), once)
		want := []string{
			"0s 0 ContainerCreating",
			"1s 1 ", // at once
			"12s 2 CrashLoopBackOff",
			"33s 3 CrashLoopBackOff",
			"1m13s 3 CreateContainerError", // what did not start was no restart
			"2m34s 4 CrashLoopBackOff",
			"5m15s 5 CrashLoopBackOff",
			"10m16s 6 CrashLoopBackOff", // 5 minutes at most
			"15m17s 7 CrashLoopBackOff",
			"25m18s 8 ", // it ran long enough
			"25m29s 9 CrashLoopBackOff",
		}
		if diff := cmp.Diff(want, starts); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
	})
}
