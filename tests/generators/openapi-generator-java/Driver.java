import client.ApiClient;
import client.ApiException;
import client.api.HostApi;
import client.api.RegionsApi;
import client.api.RegionsApi.APIChangeRegionRequest;
import client.api.RegionsApi.APICreateRegionRequest;
import client.api.RegionsApi.APIDeleteRegionRequest;
import client.api.RegionsApi.APIGetRegionByNameRequest;
import client.api.RegionsApi.APIGetRegionRequest;
import client.api.RegionsApi.APIListRegionsRequest;
import client.api.RegionsApi.APISealRegionRequest;
import client.api.SessionsApi;
import client.api.SessionsApi.APIEndSessionRequest;
import client.api.SessionsApi.APIOpenSessionRequest;
import client.model.*;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** Drives the client that openapi-generator makes for Java: ../steps.ts says what each step does. */
public class Driver {
  private static RegionsApi regions;
  private static Region region;

  public static void main(String[] arguments) throws Exception {
    String url = arguments[0], tomorrowUrl = arguments[1];
    long largeBytes = Long.parseLong(arguments[2]);
    regions = new RegionsApi(connect(url));
    SessionsApi sessions = new SessionsApi(connect(url));
    APIOpenSessionRequest opening =
        APIOpenSessionRequest.newBuilder().openSession(new OpenSession().ttlMs(60_000)).build();
    String session = sessions.openSession(opening).getId();

    step("create", () -> {
      region = create(weights(session));
      want("owner.kind", region.getOwner().getKind(), "session");
      want("session", region.getSession(), session);
      want("tensors", region.getTensors().size(), 2);
      want("w.byte_size", region.getTensors().get(0).getByteSize(), 12L);
      return "";
    });
    step("checksum-null", () -> {
      want("checksum", region.getChecksum(), null);
      return "";
    });
    step("get", () -> {
      RegionDetail detail = get(regions, region.getId());
      want("id", detail.getId(), region.getId());
      want("b.name", detail.getTensors().get(1).getName(), "b");
      return "";
    });
    step("get-by-name", () -> {
      var request = APIGetRegionByNameRequest.newBuilder().model("default").name("weights").build();
      want("id", regions.getRegionByName(request).getId(), region.getId());
      return "";
    });
    step("list", () -> {
      RegionList page = regions.listRegions(APIListRegionsRequest.newBuilder().model("default").build());
      want("items", page.getItems().size(), 1);
      want("id", page.getItems().get(0).getId(), region.getId());
      want("next_cursor", page.getNextCursor(), null);
      return "";
    });
    step("change", () -> {
      Region changed = change();
      want("revision", changed.getRevision(), 2L);
      want("labels.job", changed.getLabels().get("job"), "nightly");
      return "";
    });
    step("stale", () -> {
      problemOf(Driver::change, 412, "revision-mismatch");
      return "";
    });
    step("seal", () -> {
      var sealing = new SealRegion().checksum(true);
      region = regions.sealRegion(
          APISealRegionRequest.newBuilder().region(region.getId()).sealRegion(sealing).build());
      want("state", region.getState(), RegionState.SEALED);
      return "";
    });
    step("checksum", () -> {
      want("algorithm", region.getChecksum().getAlgorithm(), "xxh3-64-tree");
      want("value's length", region.getChecksum().getValue().length(), 16);
      return "";
    });
    step("not-found", () -> {
      problemOf(() -> get(regions, "reg_missingmissingmissingmissi"), 404, "region-not-found");
      return "";
    });
    step("name-taken", () -> {
      problemOf(() -> create(weights(session)), 409, "name-taken");
      return "";
    });
    step("invalid", () -> {
      CreateRegion request = weights(session).labels(Map.of("", "x"));
      return problemOf(() -> create(request), 422, "validation-failed").getIssues().get(0).getPath();
    });
    step("full", () -> {
      Problem problem =
          problemOf(() -> create(new CreateRegion().byteSize(1L << 50).ttlMs(60_000L)), 507, "pool-full");
      return problem.getCode() + " " + problem.getRequestedBytes() + " " + problem.getAvailableBytes();
    });
    if (largeBytes > 0) {
      step("large", () -> {
        Region large = create(new CreateRegion().byteSize(largeBytes).ttlMs(60_000L));
        delete(large);
        return large.getTensors().get(0).getByteSize() + " " + large.getStorage().getByteSize();
      });
    }
    step("persist", () -> {
      Region kept = create(new CreateRegion().model("default").name("kept").persist(true).byteSize(64L));
      want("owner.kind", kept.getOwner().getKind(), "persist");
      want("state", delete(kept).getState(), Deletion.StateEnum.DELETED);
      return "";
    });
    step("epoch", () -> new HostApi(connect(url)).getStats().getEpoch().toString());
    step("tomorrow", () -> {
      RegionsApi tomorrows = new RegionsApi(connect(tomorrowUrl));
      CreateRegion request = new CreateRegion().tensors(weights(session).getTensors()).ttlMs(60_000L);
      Region later = tomorrows.createRegion(APICreateRegionRequest.newBuilder().createRegion(request).build());
      Problem problem =
          problemOf(() -> get(tomorrows, "reg_missingmissingmissingmissi"), 404, "region-not-found-of-tomorrow");
      return String.join(" ", later.getOwner().getKind(), later.getStorage().getKind(),
          later.getTensors().get(0).getDtype(), problem.getCode());
    });
    step("end", () -> {
      SessionEnd end = sessions.endSession(APIEndSessionRequest.newBuilder().session(session).build());
      want("regions", end.getRegions().longValue(), 1L);
      return "";
    });
  }

  private static ApiClient connect(String url) {
    ApiClient client = new ApiClient();
    client.updateBaseUri(url);
    return client;
  }

  private static CreateRegion weights(String session) {
    return new CreateRegion()
        .model("default")
        .name("weights")
        .tensors(List.of(
            new TensorRequest().name("w").dtype(Dtype.BF16).shape(List.of(2L, 3L)),
            new TensorRequest().name("b").dtype(Dtype.F32).shape(List.of(3L))))
        .session(session);
  }

  private static Region create(CreateRegion request) throws ApiException {
    return regions.createRegion(APICreateRegionRequest.newBuilder().createRegion(request).build());
  }

  private static RegionDetail get(RegionsApi regions, String id) throws ApiException {
    return regions.getRegion(APIGetRegionRequest.newBuilder().region(id).build());
  }

  private static Region change() throws ApiException {
    ChangeRegion change = new ChangeRegion().labels(Map.of("job", "nightly"));
    return regions.changeRegion(APIChangeRegionRequest.newBuilder()
        .region(region.getId()).changeRegion(change).ifMatch("\"1\"").build());
  }

  private static Deletion delete(Region region) throws ApiException {
    return regions.deleteRegion(APIDeleteRegionRequest.newBuilder().region(region.getId()).build());
  }

  private interface Work<Value> {
    Value run() throws Exception;
  }

  /** The Problem of a refusal, as the client has read it. */
  private static Problem problemOf(Work<?> work, int status, String code) throws Exception {
    try {
      work.run();
    } catch (ApiException failure) {
      want("status", failure.getCode(), status);
      Problem problem = new ApiClient().getObjectMapper().readValue(failure.getResponseBody(), Problem.class);
      want("status in the Problem", problem.getStatus().intValue(), status);
      want("code", problem.getCode(), code);
      return problem;
    }
    throw new AssertionError("want " + status + ", got an answer");
  }

  /** Prints `ok NAME [what the work read]`, or `FAIL NAME: why` if it throws. */
  private static void step(String name, Work<String> work) {
    try {
      System.out.println("ok " + name + " " + work.run());
    } catch (Throwable why) {
      System.out.println("FAIL " + name + ": " + why.toString().lines().findFirst().orElse(""));
    }
  }

  private static void want(String what, Object read, Object right) {
    if (!Objects.equals(read, right)) throw new AssertionError(what + " is " + read + ", want " + right);
  }
}
