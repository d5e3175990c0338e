// Packages that the documents name, and that the repository does not install: as much of them as is used.
declare module "*.css";

declare module "react-native" {
  export const AppState: {
    readonly currentState: string;
    addEventListener(type: "change", listener: (state: string) => void): { remove(): void };
  };
}

declare module "@react-native-community/netinfo" {
  interface State {
    readonly type: string;
    readonly isConnected: boolean | null;
    readonly details: object | null;
  }
  const NetInfo: { addEventListener(listener: (state: State) => void): () => void };
  export default NetInfo;
}

declare module "@react-native-async-storage/async-storage" {
  const AsyncStorage: {
    getItem(key: string): Promise<string | null>;
    setItem(key: string, value: string): Promise<void>;
    removeItem(key: string): Promise<void>;
  };
  export default AsyncStorage;
}
