/**
 * What callers may ask for, call by call. The wire spells it the same, in its own case; `check/tables.ts` says of each option
 * what it may be.
 */

import type { TensordError } from "./errors.ts";
import type { NewRegion } from "./http/api.ts";
import type { RegionDescriptor } from "./http/wire.ts";
import type { WaitOptions } from "./waiting.ts";

export const defaultModel = "default";

export interface ConnectOptions extends WaitOptions {
  /** `http://host:port` or `unix:///path`. */
  readonly url?: string;
  /** Who asks, where the server wants to know; sent as a header, and never shown. Default: `TENSORD_TOKEN`, `TENSORD_TOKEN_FILE`. */
  readonly token?: string;
  /** How long to wait until the server is ready. Without it nothing is sent before the first call. */
  readonly waitMs?: number;
  /** How long a call waits for a server that was there before, as in a restart. Default: 10 s. */
  readonly retryMs?: number;
  /** How to open this client's session when it is first needed, or false for a client without one. */
  readonly session?: SessionOptions | false;
}

/** What a session is held by. */
export type HoldBy = "websocket" | "broker";

export interface SessionOptions {
  /** What people see beside the process id. Default: the program's file name. */
  readonly name?: string | undefined;
  /** What the session may own at once. Default: no bound of its own. */
  readonly quotaBytes?: number | undefined;
  /** How long it outlives a server that is away, from the server's next start. Default: 30 s. */
  readonly ttlMs?: number | undefined;
  /**
   * What holds it: a WebSocket, or a connection to the server's broker, which needs none. Default: a WebSocket, and the broker where
   * none comes through, or where the server knows this process by its uid alone: then the broker also issues the token that is sent
   * from then on.
   */
  readonly hold?: HoldBy | undefined;
  /**
   * Told when the session was lost: the server ended it without this client, by request or by its TTL, and what it owned
   * with it. What is mapped here stays mapped, and the next use opens another session. `error` has the code
   * `session-not-found` and says so. Default: a warning of the process, `process.on("warning")`.
   */
  readonly onLost?: ((error: TensordError) => void) | undefined;
}

/** A region is named by its name, model and version where it is looked up, and by one of these elsewhere. */
export type AnyRegion = string | { readonly id: string };

/**
 * What decides a region's end. `ttlMs`: so long after now. `lingerMs`: so long after the last process let go of it; 0 hands
 * it off: once sealed, it ends when its consumer lets go, or if none came within `handoffMs` (a minute) after its maker let
 * go. `persist`: only a `delete`, and it needs a name. None of them: this client's session.
 */
export type Owner =
  | (Pick<NoOwner, "lingerMs" | "handoffMs" | "persist"> & { readonly ttlMs: number })
  | (Pick<NoOwner, "ttlMs" | "persist"> & { readonly lingerMs: number; readonly handoffMs?: number | undefined })
  | (Pick<NoOwner, "ttlMs" | "lingerMs" | "handoffMs"> & { readonly persist: true })
  | NoOwner;

interface NoOwner {
  readonly ttlMs?: undefined;
  readonly lingerMs?: undefined;
  readonly handoffMs?: undefined;
  readonly persist?: undefined;
}

interface CommonOptions extends WaitOptions {
  readonly model?: string | undefined;
  /** Which build of the name; versions stand side by side. Default: the empty one. */
  readonly version?: string | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /**
   * What it is made of: `shm`, a file with a name; `memfd`, memory without one, whose seal is the kernel's; or `heap`, for
   * processes that share no memory with the server: memory of this process, which the seal uploads once, and of which nobody
   * else has anything before. Default: the first of them that the server has; and `heap` where such a region can be reached here
   * neither by its name nor by the broker, of which the process is warned once.
   */
  readonly storage?: "shm" | "memfd" | "heap" | undefined;
  /** No name that others open, and no user but the server's may: who attaches it gets a descriptor from the server's broker. */
  readonly private?: boolean | undefined;
  /** With `memfd`: made of reserved pages of this size, such as `"2MiB"`, or refused. `capabilities` says what the host has. */
  readonly hugePages?: NewRegion["hugePages"] | undefined;
  /** Once it is sealed and nobody maps it, it may go to make room for others. */
  readonly evictable?: boolean | undefined;
  /** Without room: an error (the default), to evict what may go, or to wait for it as well. */
  readonly onFull?: "fail" | "evict" | "wait" | undefined;
  /** How long `onFull: "wait"` waits. Default: 30 s. */
  readonly deadlineMs?: number | undefined;
}

export type CreateOptions = Owner &
  CommonOptions & {
    /** What a taken name means: an error, the region that is there, or to take the name over when this one is sealed. */
    readonly ifExists?: "fail" | "attach" | "replace" | undefined;
  };

export type CopyOptions = Owner &
  Omit<CommonOptions, "storage"> & {
    /** Default: none; it is then reached by id or reference. */
    readonly name?: string | null | undefined;
    /** What the copy is made of: as for `create`. */
    readonly storage?: "shm" | "memfd" | "heap" | undefined;
    /** The UUID of a device, in whose memory the copy is to be, in place of `storage`. */
    readonly device?: string | undefined;
    /** As for `create`: with `"attach"` a region of that name which has the same tensors is taken instead. */
    readonly ifExists?: "fail" | "attach" | "replace" | undefined;
  };

export type LoadOptions = Owner &
  Omit<CommonOptions, "storage"> & {
    /** Default: the file's, without its suffix. */
    readonly name?: string | undefined;
    /** Whether the file is taken for bytes, whatever is in it: one `U8` tensor named `data`. Default: its format's tensors. */
    readonly raw?: boolean | undefined;
    /**
     * Default `"copy"`: the file's bytes are copied into a region. `"map"`: the region is the file itself; nothing is copied or charged,
     * every process maps the file and so must be able to read it, and who writes to it changes what is mapped. `"auto"` maps one file
     * that is not compressed, lies on a file system of this machine, and that no worker may write to, and copies any other; the
     * operation's descriptor has the `mode` and the `reason`.
     */
    readonly mode?: "auto" | "map" | "copy" | undefined;
    /** What the region is made of: as for `create`. */
    readonly storage?: "shm" | "memfd" | "heap" | undefined;
    /** The UUID of a device, in whose memory the region is to be, in place of `storage`. */
    readonly device?: string | undefined;
    /** What a region means that has this name and version. Default `"attach"`: it is the result, if its tensors agree. */
    readonly ifExists?: "attach" | "fail" | undefined;
  };

/** As for `load`, and how its end is waited for. */
export type LoadModelOptions = LoadOptions &
  Pick<OperationWaitOptions, "timeoutMs" | "onProgress"> & {
    /** As for `attach`. */
    readonly strict?: boolean | undefined;
  };

export interface OperationsOptions extends WaitOptions {
  readonly model?: string;
  readonly state?: "running" | "succeeded" | "failed" | "cancelled";
}

export interface OperationWaitOptions extends WaitOptions {
  /** How long to wait. Default: without end. */
  readonly timeoutMs?: number;
  /** Told about once a second how many bytes are done, and of how many. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** Without an owner the region lingers for 10 minutes. */
export type GetOrCreateOptions = Owner &
  CommonOptions & {
    /** How long to wait for another builder. Default: without end. */
    readonly timeoutMs?: number | undefined;
    /**
     * Builds anew what is there, in the empty version unless one is said. Until the new one is sealed, which takes the name
     * over, everybody else gets the old one, whose memory is needed beside the new one's; if the build fails it stays. Of
     * several who ask for that at a time one builds, and the others get what it has made.
     */
    readonly rebuild?: boolean | undefined;
    /** Records a checksum at the seal. */
    readonly checksum?: boolean | undefined;
    /** As for `attach`, for those who did not build. */
    readonly strict?: boolean | undefined;
  };

/** As for `create`, where the storage is the device's. */
export type CreateOnDeviceOptions = Owner &
  Omit<CommonOptions, "storage" | "private" | "hugePages"> & {
    /** Whose memory, by its UUID, such as `GPU-…`. May be left out where the server has exactly one. */
    readonly deviceUuid?: string | undefined;
    /** As for `create`. */
    readonly ifExists?: "fail" | "attach" | "replace" | undefined;
  };

export type RingOptions = Owner &
  CommonOptions & {
    /** 1 to 4096. Default: 16. */
    readonly slots?: number | undefined;
    /** The largest tensor; rounded up to a multiple of 8. Default: 8 MiB. */
    readonly slotBytes?: number | undefined;
    /** Default: none, since its tensors are reached by their references. */
    readonly name?: string | null | undefined;
  };

export interface AccessOptions {
  /** Maps it for writing: others see each write. */
  readonly writable?: boolean;
  /** Makes a write through a read-only attachment a crash, instead of a private page of this process. */
  readonly strict?: boolean;
}

export interface AttachOptions extends AccessOptions, WaitOptions {
  readonly model?: string;
  /** This one. Default: the newest that is sealed, or, where none is, the newest, in every moment of a wait. */
  readonly version?: string;
  /** How long to wait: a reader until the region is there *and sealed*, a writer until it is there. */
  readonly timeoutMs?: number;
}

/** As for `attach`; what reads the path decides how. */
export type HoldOptions = Omit<AttachOptions, keyof AccessOptions>;

/** As for `attach`; nothing is mapped here, so there is no `strict`. */
export type AttachOnDeviceOptions = Omit<AttachOptions, "strict">;

/** Where a region is looked up by its name. */
export interface GetOptions extends WaitOptions {
  readonly model?: string;
  /** This one. Default: the newest that is sealed, or, where none is, the newest. */
  readonly version?: string;
}

export interface ListOptions extends WaitOptions {
  readonly model?: string;
  readonly name?: string;
  /** Only this one of the name's. Default: all. */
  readonly version?: string;
  readonly state?: RegionDescriptor["state"];
  /** The session that ends them, or its id. */
  readonly session?: string | { readonly id: string };
  /** A key and its value. */
  readonly label?: readonly [string, string];
}

/** Of what is changed or deleted. */
export interface RevisionOptions extends WaitOptions {
  /** Only this `revision` of it, else `revision-mismatch`. Default: whatever it is by now. */
  readonly ifMatch?: number;
}

export type ChangeOptions = Owner &
  RevisionOptions & {
    readonly evictable?: boolean;
    /** Those named; null removes one. */
    readonly labels?: Readonly<Record<string, string | null>>;
  };

export interface EvictOptions extends WaitOptions {
  /** Only of this model. Default: of all. */
  readonly model?: string;
  /** "host", which is the default, or a device's UUID. */
  readonly pool?: string;
  /** Says what would go, and frees nothing. */
  readonly dryRun?: boolean;
}

/** By pool, "host" or a device's UUID: bytes; null: none of its own. Pools that are not named keep theirs. */
export type PoolLimits = Readonly<Record<string, number | null>>;

export interface RegisterModelOptions extends WaitOptions {
  /** Of host memory. Default: none of its own. */
  readonly memoryLimitBytes?: number;
  readonly limits?: PoolLimits;
}

export interface ChangeModelOptions extends RevisionOptions {
  /** Of host memory; null removes the limit. */
  readonly memoryLimitBytes?: number | null;
  readonly limits?: PoolLimits;
}

export interface UnregisterModelOptions extends RevisionOptions {
  /** Deletes its regions with it. */
  readonly drain?: boolean;
}

export interface SealOptions extends RevisionOptions {
  /** Records a checksum for `client.verify`. */
  readonly checksum?: boolean;
  /** Keeps the file openable read-write for stock readers that insist (Python's `SharedMemory`). */
  readonly stockWritable?: boolean;
}

/** As for one region, and the revisions in a list, one for each. */
export interface SealGroupOptions extends Omit<SealOptions, "ifMatch"> {
  readonly ifMatch?: readonly number[];
}

export interface LockOptions extends WaitOptions {
  /** How long to wait for the others. Default: without end. */
  readonly timeoutMs?: number | undefined;
}

export interface PackedOptions {
  /** As 128 bytes, which `receiver.open` takes. */
  readonly packed?: boolean | undefined;
}

export interface PutOptions extends LockOptions, PackedOptions {}

export interface ReceiverOptions {
  /** Takes requests too, which are answered in their slots. */
  readonly writable?: boolean | undefined;
  /** Begins with the next message that is sent, and not with the oldest one that is still there. */
  readonly onlyNew?: boolean | undefined;
}

export interface OpenPackedOptions extends LockOptions {
  /** To be written to, as a result slot. */
  readonly writable?: boolean | undefined;
}

export interface SlotOptions {
  /** Maps it for writing: others see each write. */
  readonly writable?: boolean;
}

export interface EventOptions extends WaitOptions {
  /** The id of an event: everything after it that is kept comes first. Without it the stream begins now. */
  readonly after?: string | undefined;
  /** Only events of this model. */
  readonly model?: string | undefined;
  /** Only events of this session, by its id. */
  readonly session?: string | undefined;
  /** Only events whose type begins with one of these, such as `tensord.region.`. */
  readonly types?: readonly string[] | undefined;
  /** Whether to connect again when the connection ends, for as long as it takes. Default: true. */
  readonly reconnect?: boolean | undefined;
}

export interface PoolsOptions extends WaitOptions {
  /** Only this model's. */
  readonly model?: string;
}

export interface CreatePoolOptions extends WaitOptions {
  /** The bytes of its range, in whole pages. */
  readonly virtualCapacity: number;
  /** A power of two, from the device's granularity to 1 GiB. Default: 64 MiB. */
  readonly pageSize?: number;
  /** What is charged for it at least, so that nobody else takes it. Default: 0. */
  readonly minimumBytes?: number;
  /** What its pages may take; null, the default: no limit of its own. */
  readonly maximumBytes?: number | null;
}

export interface ChangePoolOptions extends RevisionOptions {
  readonly minimumBytes?: number;
  /** null removes the limit. */
  readonly maximumBytes?: number | null;
}

/** A range of which is to be said whether all of it is mapped; half a range goes to the end, or from the beginning. */
export interface DescribePoolOptions extends WaitOptions {
  readonly byteOffset?: number;
  readonly byteSize?: number;
}

export interface MapOptions extends WaitOptions {
  /** Where, in whole pages. Default: the first hole that fits. */
  readonly byteOffset?: number;
  /** The session with which the pages go, or its id. Default: none. */
  readonly session?: string | { readonly id: string };
  /** They may go to make room, least recently used first. Default: false. */
  readonly evictable?: boolean;
  /** Without room: "fail", the default; "evict" what may go; "wait" for it, and for others to let go. */
  readonly onFull?: "fail" | "evict" | "wait";
  /** How long "wait" waits. */
  readonly deadlineMs?: number;
}

/** As of all events; the model and the types are the pool's. */
export type PoolEventOptions = Pick<EventOptions, "after" | "reconnect" | "signal">;
