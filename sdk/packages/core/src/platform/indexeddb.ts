/** An outbox in IndexedDB; the tabs of one user share it. */
import type { OutboxEntry, OutboxStore } from "../types.ts";

const STORE = "outbox";

/** @throws DOMException where the browser keeps nothing, as in some private windows */
export async function indexedDbOutbox(factory: IDBFactory, name: string): Promise<OutboxStore> {
  const opening = factory.open(name, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
  const database = await settled(opening);
  // Another tab wants to delete or upgrade it: it must not wait for this one.
  database.onversionchange = () => database.close();

  const change = (work: (store: IDBObjectStore) => void): Promise<void> =>
    new Promise((resolve, reject) => {
      // `strict`: on the disk, and not only with the system.
      const transaction = database.transaction(STORE, "readwrite", { durability: "strict" });
      transaction.oncomplete = () => resolve();
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("the transaction was aborted"));
      work(transaction.objectStore(STORE));
    });

  return {
    load: async () => {
      const entries = (await settled(database.transaction(STORE).objectStore(STORE).getAll())) as OutboxEntry[];
      return entries.sort((one, other) => one.seq - other.seq);
    },
    add: (entry) => change((store) => store.put(entry)),
    remove: (ids) => change((store) => ids.forEach((id) => store.delete(id))),
    close: () => database.close(),
  };
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed"));
  });
}
