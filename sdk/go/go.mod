module github.com/stackshift-cloud/jobs-go

go 1.19
