/** Mistakes in what is done to a region: its creation, those who attach, its seal, its deletion, its public name. */

const regions = "src/memory/regions";

export const regionsMutations = [
  {
    name: "a creation whose client went away is finished all the same",
    file: `${regions}/create.ts`,
    find: `else cancelCreation(region, "its client went away");`,
    replace: "",
    test: ["tests/contract/create.test.ts", "whose client goes away is undone before the commit"],
  },
  {
    name: "a creation that is undone stays in the books",
    file: `${regions}/end.ts`,
    find: `  store.books.change(region, { state: nextState(region, "abort") });`,
    replace: "",
    test: ["tests/contract/create.test.ts", "that is deleted gives back its name, its bytes and its file"],
  },
  {
    name: "a commit shows the name before the row is written",
    file: `${regions}/create.ts`,
    find: `    store.journal.insertRegion({ ...region, state });
    store.step("create.journaled");
    store.proofs.put(region);
    store.step("create.proved");
    names.publish(token);
    store.step("create.published");`,
    replace: `    names.publish(token);
    store.step("create.published");
    store.journal.insertRegion({ ...region, state });
    store.step("create.journaled");
    store.proofs.put(region);
    store.step("create.proved");`,
    test: ["tests/faults/killed-at-step.test.ts", "during the creation of a small region, after create.published"],
  },
  {
    name: "attaching shortens a life",
    file: `${regions}/attach.ts`,
    find: "return expiresAt > (region.expiresAt ?? 0) ? expiresAt : undefined;",
    replace: "return expiresAt;",
    test: ["tests/contract/if-exists.test.ts", "extends a life that is shorter than what is asked for"],
  },
  {
    name: "attaching does not wait for a region in creation",
    file: `${regions}/create.ts`,
    find: "if (existing.creation === null) return !hasEnded",
    replace: "if (existing.creation !== undefined) return !hasEnded",
    test: ["tests/contract/if-exists.test.ts", "waits for a region in creation"],
  },
  {
    name: "a claim that rebuilds is taken for built at the next start",
    file: "src/memory/start/recover.ts",
    find: ` && holder.token !== row.rebuilds;`,
    replace: ";",
    test: ["tests/faults/killed-at-step.test.ts", "during a rebuild, after create.journaled"],
  },
  {
    name: "a rebuild whose time is over is answered with the stale region",
    file: `${regions}/claim.ts`,
    find: "    const region = stale === undefined ? holder : undefined;\n",
    replace: "    const region = holder;\n",
    test: ["tests/contract/rebuilds.test.ts", "has nothing for those who asked"],
  },
  {
    name: "a refused seal of a group reopens the member that was refused alone",
    file: `${regions}/seal.ts`,
    find: `for (const region of regions) if (region.state === "sealing") reopen(store, region);`,
    replace: `const region = regions.findLast(({ state }) => state === "sealing");
    if (region !== undefined) reopen(store, region);`,
    test: ["tests/contract/groups.test.ts", "of which one is refused is open"],
  },
  {
    name: "a group is asked for writers member by member, each after its own mode",
    file: `${regions}/seal.ts`,
    find: `      store.step("seal.mode-set");
    });
    // After the mode: a writer that locks later sees a sealed file and lets go.
    await inSlices(store, regions, (region) => {
      usages.push(checkUsage(store, region));`,
    replace: `      store.step("seal.mode-set");
      usages.push(checkUsage(store, region));`,
    test: ["tests/contract/groups.test.ts", "minds a writer of any member"],
  },
  {
    name: "a seal does not ask for writers",
    file: `${regions}/seal.ts`,
    find: "  if (usage?.written === true) throw hasWriters(region);\n",
    replace: "",
    test: ["tests/contract/seal.test.ts", "minds a writer until it lets go"],
  },
  {
    name: "a seal asks for writers before it takes away their mode",
    file: `${regions}/seal.ts`,
    find: `      store.storages.of(region).memory.setAccess(region.token, access);
      store.step("seal.mode-set");
    });
    // After the mode: a writer that locks later sees a sealed file and lets go.
    await inSlices(store, regions, (region) => {
      usages.push(checkUsage(store, region));`,
    replace: `      usages.push(checkUsage(store, region));
    });
    await inSlices(store, regions, (region) => {
      store.storages.of(region).memory.setAccess(region.token, access);
      store.step("seal.mode-set");`,
    test: ["tests/contract/seal.test.ts", "minds a writer that came while the mode was being set"],
  },
  {
    name: "a seal wakes nobody who waits for the name",
    file: `${regions}/seal.ts`,
    find: "  for (const { model, name } of regions) if (name !== null) store.waiters.wake(model, name);\n",
    replace: "",
    test: ["tests/contract/wait.test.ts", "ends with the sealed region"],
  },
  {
    name: "a region that somebody maps is freed",
    file: `${regions}/free.ts`,
    find: "  if (isLeased(store, region)) return false;\n",
    replace: "",
    test: ["tests/contract/delete.test.ts", "drains while somebody maps it"],
  },
  {
    name: "a deletion asks for leases before the name goes",
    file: `${regions}/free.ts`,
    find: `  names.withdraw(region.token, region.identity);
  store.step("delete.withdrawn");
  region.waitsFor = "lease";
  if (isLeased(store, region)) return false;`,
    replace: `  const isMapped = isLeased(store, region);
  names.withdraw(region.token, region.identity);
  store.step("delete.withdrawn");
  region.waitsFor = "lease";
  if (isMapped) return false;`,
    test: ["tests/contract/delete.test.ts", "locked it just when its name went"],
  },
  {
    name: "a region that is freed keeps its row",
    file: `${regions}/free.ts`,
    find: "  store.journal.deleteRegion(region.key);\n",
    replace: "",
    test: ["tests/faults/killed-at-step.test.ts", "during the deletion of a small region, after delete.row-deleted"],
  },
  {
    name: "a change is made to another revision than the client knows",
    file: "src/routes/preconditions.ts",
    find: "wanted.some((tag) => tagged.tags.includes(tag))) return;",
    replace: "wanted.length > 0) return;",
    test: ["tests/contract/preconditions.test.ts", "by who knows what stood before is refused"],
  },
  {
    name: "the next build of a name goes for the one that the client knows",
    file: "src/routes/region.ts",
    find: `"delete", toTaggedName(region)`,
    replace: `"delete", toTaggedRegion(region)`,
    test: ["tests/contract/preconditions.test.ts", "is not enough by name"],
  },
  {
    name: "a name that was removed is not linked back",
    file: "src/memory/storage/shm/shm-names.ts",
    find: "        linkSync(kept, name);\n",
    replace: "",
    test: ["tests/contract/delete.test.ts", "that somebody removed is back"],
  },
  {
    name: "a foreign file in a name's place is taken for the region's",
    file: "src/memory/storage/shm/shm-names.ts",
    find: `if (named !== undefined && isSame(toIdentity(named), identity)) return "intact";`,
    replace: `if (named !== undefined) return "intact";`,
    test: ["tests/contract/events-envelope.test.ts", "relinked has the cause"],
  },
  {
    name: "a name that is taken again a moment after it was mended stays taken",
    file: `${regions}/public-name.ts`,
    find: "  store.mending.schedule(region, store.now() + limits.nameLookAgainMs);\n",
    replace: "",
    test: ["tests/contract/delete.test.ts", "that was mended is looked at again"],
  },
  {
    name: "names that were moved onto are not heard of",
    file: "src/memory/os/libc.ts",
    find: "IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)",
    replace: "IN_DELETE | IN_MOVED_FROM)",
    test: ["tests/unit/lost-names.test.ts", "moved away or moved onto are told"],
  },
  {
    name: "an overflow of the kernel's queue is not heeded",
    file: `${regions}/name-watch.ts`,
    find: "onOverflow: () => this.#sweepSoon(),",
    replace: "onOverflow: () => {},",
    test: ["tests/faults/stranger.test.ts", "among more than the kernel keeps"],
  },
];
