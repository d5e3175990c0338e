/** The device's network, foreground and storage, for `createClient({platform: nativePlatform({…})})`. */
export { foreground, type Foreground } from "./foreground.ts";
export { storageOutbox } from "./outbox.ts";
export { nativePlatform, type AppStateLike, type NetInfoLike, type NetInfoStateLike, type NativeParts } from "./platform.ts";
