package stackshift_test

import (
	"context"
	"time"

	stackshift "github.com/stackshift-cloud/jobs-go"
)

func ExampleClient_Job() {
	client := stackshift.New(stackshift.Options{APIKey: "key"})
	client.Job("userOnboarding", func(ctx context.Context, job stackshift.JobContext) (any, error) {
		var in struct{ UserID string }
		if err := job.Decode(&in); err != nil {
			return nil, err
		}
		id, err := stackshift.Decode[int](job.Step.Run(ctx, "create-user", func(ctx context.Context) (any, error) {
			return 7, nil
		}))
		if err != nil {
			return nil, err
		}
		_, err = job.Step.WaitForEvent(ctx, "email.verified", &stackshift.WaitOptions{
			CorrelationKey: "user:" + in.UserID, Timeout: 24 * time.Hour, OnTimeout: stackshift.OnTimeoutFail})
		return id, err
	})
}
