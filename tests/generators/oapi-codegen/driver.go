// Drives the client that oapi-codegen makes: ../steps.ts says what each step does.
package main

import (
	"context"
	"fmt"
	"net/http"

	"drive/client"
)

var ctx = context.Background()

func main() {
	url, tomorrowUrl, largeBytes := arguments()
	api := must(client.NewClientWithResponses(url))
	opened := must(api.OpenSessionWithResponse(ctx, client.OpenSession{TtlMs: pointer[int32](60_000)}))
	session := read(opened.HTTPResponse, opened.JSON201)

	weights := func() client.CreateRegion {
		return client.CreateRegion{
			Model: pointer("default"),
			Name:  pointer("weights"),
			Tensors: &[]client.TensorRequest{
				{Name: "w", Dtype: client.BF16, Shape: []int64{2, 3}},
				{Name: "b", Dtype: client.F32, Shape: []int64{3}},
			},
			Session: &session.Id,
		}
	}
	create := func(request client.CreateRegion) *client.Region {
		answer := must(api.CreateRegionWithResponse(ctx, request))
		return read(answer.HTTPResponse, answer.JSON201)
	}
	var region *client.Region

	step("create", func() string {
		region = create(weights())
		want("owner.kind", region.Owner.Kind, "session")
		want("session", *region.Session, session.Id)
		want("tensors", len(region.Tensors), 2)
		want("w.byte_size", region.Tensors[0].ByteSize, 12)
		return ""
	})
	step("checksum-null", func() string {
		want("checksum", region.Checksum, nil)
		return ""
	})
	step("get", func() string {
		answer := must(api.GetRegionWithResponse(ctx, region.Id, nil))
		detail := read(answer.HTTPResponse, answer.JSON200)
		want("id", detail.Id, region.Id)
		want("b.name", detail.Tensors[1].Name, "b")
		return ""
	})
	step("get-by-name", func() string {
		answer := must(api.GetRegionByNameWithResponse(ctx, "default", "weights", nil))
		want("id", read(answer.HTTPResponse, answer.JSON200).Id, region.Id)
		return ""
	})
	step("list", func() string {
		answer := must(api.ListRegionsWithResponse(ctx, &client.ListRegionsParams{Model: pointer("default")}))
		page := read(answer.HTTPResponse, answer.JSON200)
		want("items", len(page.Items), 1)
		want("id", page.Items[0].Id, region.Id)
		want("next_cursor", page.NextCursor, nil)
		return ""
	})
	change := func() *client.ChangeRegionResponse {
		return must(api.ChangeRegionWithResponse(ctx, region.Id,
			&client.ChangeRegionParams{IfMatch: pointer(`"1"`)},
			client.ChangeRegion{Labels: &map[string]*string{"job": pointer("nightly")}}))
	}
	step("change", func() string {
		answer := change()
		changed := read(answer.HTTPResponse, answer.JSON200)
		want("revision", changed.Revision, 2)
		want("labels.job", changed.Labels["job"], "nightly")
		return ""
	})
	step("stale", func() string {
		answer := change()
		problemOf(answer.HTTPResponse, answer.ApplicationproblemJSON412, 412, "revision-mismatch")
		return ""
	})
	step("seal", func() string {
		answer := must(api.SealRegionWithResponse(ctx, region.Id, nil, client.SealRegion{Checksum: pointer(true)}))
		region = read(answer.HTTPResponse, answer.JSON200)
		want("state", region.State, "sealed")
		return ""
	})
	step("checksum", func() string {
		want("algorithm", region.Checksum.Algorithm, "xxh3-64-tree")
		want("value's length", len(region.Checksum.Value), 16)
		return ""
	})
	step("not-found", func() string {
		answer := must(api.GetRegionWithResponse(ctx, "reg_missingmissingmissingmissi", nil))
		problemOf(answer.HTTPResponse, answer.ApplicationproblemJSON404, 404, "region-not-found")
		return ""
	})
	step("name-taken", func() string {
		answer := must(api.CreateRegionWithResponse(ctx, weights()))
		problemOf(answer.HTTPResponse, answer.ApplicationproblemJSON409, 409, "name-taken")
		return ""
	})
	step("invalid", func() string {
		request := weights()
		request.Labels = &map[string]string{"": "x"}
		answer := must(api.CreateRegionWithResponse(ctx, request))
		problem := problemOf(answer.HTTPResponse, answer.ApplicationproblemJSON422, 422, "validation-failed")
		return (*problem.Issues)[0].Path
	})
	step("full", func() string {
		answer := must(api.CreateRegionWithResponse(ctx, ttl(client.CreateRegion{ByteSize: pointer[int64](1 << 50)})))
		problem := problemOf(answer.HTTPResponse, answer.ApplicationproblemJSON507, 507, "pool-full")
		return fmt.Sprint(problem.Code, " ", *problem.RequestedBytes, " ", *problem.AvailableBytes)
	})
	remove := func(region *client.Region) *client.Deletion {
		answer := must(api.DeleteRegionWithResponse(ctx, region.Id, nil))
		return read(answer.HTTPResponse, answer.JSON200)
	}
	if largeBytes > 0 {
		step("large", func() string {
			large := create(ttl(client.CreateRegion{ByteSize: &largeBytes}))
			remove(large)
			return fmt.Sprint(large.Tensors[0].ByteSize, " ", large.Storage.ByteSize)
		})
	}
	step("persist", func() string {
		kept := create(client.CreateRegion{
			Model: pointer("default"), Name: pointer("kept"), Persist: pointer(true), ByteSize: pointer[int64](64),
		})
		want("owner.kind", kept.Owner.Kind, "persist")
		want("state", remove(kept).State, "deleted")
		return ""
	})
	step("epoch", func() string {
		answer := must(api.GetStatsWithResponse(ctx))
		return fmt.Sprint(read(answer.HTTPResponse, answer.JSON200).Epoch)
	})
	step("tomorrow", func() string {
		tomorrows := must(client.NewClientWithResponses(tomorrowUrl))
		created := must(tomorrows.CreateRegionWithResponse(ctx, ttl(client.CreateRegion{Tensors: weights().Tensors})))
		later := read(created.HTTPResponse, created.JSON201)
		missing := must(tomorrows.GetRegionWithResponse(ctx, "reg_missingmissingmissingmissi", nil))
		problem := problemOf(missing.HTTPResponse, missing.ApplicationproblemJSON404, 404, "region-not-found-of-tomorrow")
		return fmt.Sprint(later.Owner.Kind, " ", later.Storage.Kind, " ", later.Tensors[0].Dtype, " ", problem.Code)
	})
	step("end", func() string {
		answer := must(api.EndSessionWithResponse(ctx, session.Id))
		want("regions", read(answer.HTTPResponse, answer.JSON200).Regions, 1)
		return ""
	})
}

func ttl(request client.CreateRegion) client.CreateRegion {
	request.TtlMs = pointer[int64](60_000)
	return request
}

// read is the body of an answer, if it is the one that was hoped for.
func read[Body any](response *http.Response, body *Body) *Body {
	if body == nil {
		panic("the answer is " + response.Status)
	}
	return body
}

func problemOf(response *http.Response, problem *client.Problem, status int, code string) *client.Problem {
	want("status", response.StatusCode, status)
	want("a Problem was read", problem != nil, true)
	want("status in the Problem", int(problem.Status), status)
	want("code", problem.Code, code)
	return problem
}
