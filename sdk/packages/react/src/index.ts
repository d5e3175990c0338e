"use client";
/** React for Gapless. */
export { ConnectionStatus, LABELS, qualityOf, type ConnectionStatusProps, type Labels, type Quality } from "./connection-status.tsx";
export { useClientEvent, useConnectionStatus, useEvent, usePresence, useRoom, type RoomState } from "./hooks.ts";
export { RealtimeProvider, useRealtime, type RealtimeProviderProps } from "./provider.tsx";
export type { Events, Register } from "./types.ts";
