// Drives the client that openapi-generator makes for Go: ../steps.ts says what each step does.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"drive/client"
)

var ctx = context.Background()

func connect(url string) *client.APIClient {
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: url}}
	return client.NewAPIClient(configuration)
}

func main() {
	url, tomorrowUrl, largeBytes := arguments()
	api := connect(url)
	regions := api.RegionsAPI
	session, _, err := api.SessionsAPI.OpenSession(ctx).OpenSession(client.OpenSession{TtlMs: pointer[int32](60_000)}).Execute()
	must(session, err)

	weights := func() client.CreateRegion {
		return client.CreateRegion{
			Model: pointer("default"),
			Name:  pointer("weights"),
			Tensors: []client.TensorRequest{
				{Name: "w", Dtype: client.BF16, Shape: []int64{2, 3}},
				{Name: "b", Dtype: client.F32, Shape: []int64{3}},
			},
			Session: pointer(session.Id),
		}
	}
	create := func(request client.CreateRegion) *client.Region {
		region, _, err := regions.CreateRegion(ctx).CreateRegion(request).Execute()
		return must(region, err)
	}
	var region *client.Region

	step("create", func() string {
		region = create(weights())
		want("owner.kind", region.Owner.Kind, "session")
		want("session", *region.Session.Get(), session.Id)
		want("tensors", len(region.Tensors), 2)
		want("w.byte_size", region.Tensors[0].ByteSize, 12)
		return ""
	})
	step("checksum-null", func() string {
		want("checksum", region.Checksum.Get(), nil)
		return ""
	})
	step("get", func() string {
		detail, _, err := regions.GetRegion(ctx, region.Id).Execute()
		want("id", must(detail, err).Id, region.Id)
		want("b.name", detail.Tensors[1].Name, "b")
		return ""
	})
	step("get-by-name", func() string {
		detail, _, err := regions.GetRegionByName(ctx, "default", "weights").Execute()
		want("id", must(detail, err).Id, region.Id)
		return ""
	})
	step("list", func() string {
		page, _, err := regions.ListRegions(ctx).Model("default").Execute()
		want("items", len(must(page, err).Items), 1)
		want("id", page.Items[0].Id, region.Id)
		want("next_cursor", page.NextCursor.Get(), nil)
		return ""
	})
	change := func() (*client.Region, *http.Response, error) {
		labels := map[string]*string{"job": pointer("nightly")}
		return regions.ChangeRegion(ctx, region.Id).IfMatch(`"1"`).ChangeRegion(client.ChangeRegion{Labels: labels}).Execute()
	}
	step("change", func() string {
		changed, _, err := change()
		want("revision", must(changed, err).Revision, 2)
		want("labels.job", changed.Labels["job"], "nightly")
		return ""
	})
	step("stale", func() string {
		_, response, err := change()
		problemOf(response, err, 412, "revision-mismatch")
		return ""
	})
	step("seal", func() string {
		sealed, _, err := regions.SealRegion(ctx, region.Id).SealRegion(client.SealRegion{Checksum: pointer(true)}).Execute()
		want("state", must(sealed, err).State, "sealed")
		region = sealed
		return ""
	})
	step("checksum", func() string {
		checksum := region.Checksum.Get()
		want("algorithm", checksum.Algorithm, "xxh3-64-tree")
		want("value's length", len(checksum.Value), 16)
		return ""
	})
	step("not-found", func() string {
		_, response, err := regions.GetRegion(ctx, "reg_missingmissingmissingmissi").Execute()
		problemOf(response, err, 404, "region-not-found")
		return ""
	})
	refuse := func(request client.CreateRegion, status int, code string) *client.Problem {
		_, response, err := regions.CreateRegion(ctx).CreateRegion(request).Execute()
		return problemOf(response, err, status, code)
	}
	step("name-taken", func() string {
		refuse(weights(), 409, "name-taken")
		return ""
	})
	step("invalid", func() string {
		request := weights()
		request.Labels = map[string]string{"": "x"}
		problem := refuse(request, 422, "validation-failed")
		return problem.Issues[0].Path
	})
	step("full", func() string {
		problem := refuse(ttl(client.CreateRegion{ByteSize: pointer[int64](1 << 50)}), 507, "pool-full")
		return fmt.Sprint(problem.Code, " ", *problem.RequestedBytes, " ", *problem.AvailableBytes)
	})
	if largeBytes > 0 {
		step("large", func() string {
			large := create(ttl(client.CreateRegion{ByteSize: &largeBytes}))
			must(remove(regions, large))
			return fmt.Sprint(large.Tensors[0].ByteSize, " ", large.Storage.ByteSize)
		})
	}
	step("persist", func() string {
		kept := create(client.CreateRegion{
			Model: pointer("default"), Name: pointer("kept"), Persist: pointer(true), ByteSize: pointer[int64](64),
		})
		want("owner.kind", kept.Owner.Kind, "persist")
		want("state", must(remove(regions, kept)).State, "deleted")
		return ""
	})
	step("epoch", func() string {
		stats, _, err := api.HostAPI.GetStats(ctx).Execute()
		return fmt.Sprint(must(stats, err).Epoch)
	})
	step("tomorrow", func() string {
		tomorrows := connect(tomorrowUrl).RegionsAPI
		request := ttl(client.CreateRegion{Tensors: weights().Tensors})
		later, _, err := tomorrows.CreateRegion(ctx).CreateRegion(request).Execute()
		must(later, err)
		_, response, err := tomorrows.GetRegion(ctx, "reg_missingmissingmissingmissi").Execute()
		problem := problemOf(response, err, 404, "region-not-found-of-tomorrow")
		return fmt.Sprint(later.Owner.Kind, " ", later.Storage.Kind, " ", later.Tensors[0].Dtype, " ", problem.Code)
	})
	step("end", func() string {
		end, _, err := api.SessionsAPI.EndSession(ctx, session.Id).Execute()
		want("regions", must(end, err).Regions, 1)
		return ""
	})
}

func ttl(request client.CreateRegion) client.CreateRegion {
	request.TtlMs = pointer[int64](60_000)
	return request
}

func remove(regions *client.RegionsAPIService, region *client.Region) (*client.Deletion, error) {
	deletion, _, err := regions.DeleteRegion(ctx, region.Id).Execute()
	return deletion, err
}

// problemOf is the Problem of a refusal, as the client has read it.
func problemOf(response *http.Response, err error, status int, code string) *client.Problem {
	var failure *client.GenericOpenAPIError
	if !errors.As(err, &failure) {
		panic(fmt.Sprintf("want %d, got the error %v", status, err))
	}
	want("status", response.StatusCode, status)
	problem, isProblem := failure.Model().(client.Problem)
	want("a Problem was read", isProblem, true)
	want("status in the Problem", int(problem.Status), status)
	want("code", problem.Code, code)
	return &problem
}
