/** What the admin API answers: the Structs of `redis_core/measuring/documents.py`. A test compares the two. */

export type Role = "viewer" | "operator" | "admin";

export interface ConnectionFigures {
  mode: string;
  target: string;
  reachable: boolean;
  error: string | null;
  connects_total: number;
}

export interface TransportFigures {
  commands_total: number;
  trips_total: number;
  commands_per_trip: number | null;
  errors_total: number;
  sent_bytes_total: number;
  received_bytes_total: number;
  commands_in_flight: number;
  extra: Record<string, number>;
}

export interface OperationLatency {
  count: number;
  mean_ms: number | null;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  max_ms: number | null;
}

export interface Traffic {
  operations: number;
  operations_per_second: number;
  commands: number;
  billed_commands: number;
  trips: number;
  errors: number;
  error_ratio: number | null;
  sent_bytes: number;
  received_bytes: number;
}

export interface HitRates {
  memory_hits: number;
  store_hits: number;
  stale_hits: number;
  misses: number;
  memory_ratio: number | null;
  store_ratio: number | null;
  hit_ratio: number | null;
}

export interface ServiceFigures {
  service: string;
  operations: number;
  operations_per_second: number;
  latency: OperationLatency;
}

export interface WorkspaceFigures {
  workspace: string;
  commands: number;
  bytes: number;
  cost: number;
}

export interface ErrorFigures {
  kind: string;
  count: number;
}

export interface SlowOperation {
  time: string;
  operation: string;
  service: string;
  workspace: string | null;
  duration_ms: number;
}

export interface QueueFigures {
  queue: string;
  unfinished: number;
  running: number;
  waiting: number;
  delayed: number;
  workers: number;
  dead: number;
  paused: boolean;
  workspaces: Record<string, number>;
}

export interface QueueList {
  queues: QueueFigures[];
}

export interface Offender {
  subject: string;
  endpoint: string;
  refused: number;
}

export interface DayCost {
  day: string;
  billed_commands: number;
  cost: number;
}

export interface Cost {
  price_per_million: number;
  billed_commands_today: number;
  cost_today: number;
  forecast_today: number;
  forecast_month: number;
  days: DayCost[];
}

export interface Alarm {
  severity: "critical" | "warning";
  code: string;
  text: string;
}

export interface StoreIdentity {
  server: string;
  version: string | null;
  role: string | null;
}

export interface ServerFigures {
  uptime_seconds: number | null;
  connected_clients: number | null;
  blocked_clients: number | null;
  commands_total: number | null;
  commands_per_second: number | null;
  keyspace_hits_total: number | null;
  keyspace_misses_total: number | null;
  hit_ratio: number | null;
  expired_keys_total: number | null;
  evicted_keys_total: number | null;
  rejected_connections_total: number | null;
  input_bytes_total: number | null;
  output_bytes_total: number | null;
}

export interface Memory {
  used_bytes: number | null;
  peak_bytes: number | null;
  limit_bytes: number | null;
  fragmentation_ratio: number | null;
  eviction_policy: string | null;
}

export interface Latency {
  samples: number;
  min_ms: number | null;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  max_ms: number | null;
}

export interface OutageFigures {
  state: "healthy" | "suspect" | "degraded" | "recovering";
  available: boolean;
  forced: boolean;
  read_only: boolean;
  credentials_rejected: boolean;
  outages_total: number;
  degraded_seconds: number;
  waiting: number;
  waiting_oldest_seconds: number;
  replayed_total: number;
  quarantined: number;
  losses_total: number;
}

export interface MockMode {
  on: boolean;
  mode: string;
  outage: OutageFigures;
}

export interface RedisMetrics {
  time: string;
  uptime_seconds: number;
  alarms: Alarm[];
  connection: ConnectionFigures;
  transport: TransportFigures;
  outage: OutageFigures;
  latency: Latency;
  store: StoreIdentity | null;
  server: ServerFigures | null;
  memory: Memory | null;
  window_seconds: number;
  processes: number;
  traffic: Traffic;
  operations: OperationLatency;
  hit_rates: HitRates;
  services: ServiceFigures[];
  workspaces: WorkspaceFigures[];
  errors: ErrorFigures[];
  offenders: Offender[];
  slow_operations: SlowOperation[];
  cost: Cost;
  counters: Record<string, number>;
}

export interface SeriesLine {
  label: string;
  values: (number | null)[];
}

export interface Series {
  metric: string;
  kind: "counter" | "gauge" | "histogram";
  unit: string;
  step: number;
  times: number[];
  lines: SeriesLine[];
}

export interface AuditEntry {
  id: string;
  time: string;
  who: string;
  role: Role;
  action: string;
  target: string;
  outcome: "done" | "failed";
  before: Record<string, string | number | boolean | null>;
  after: Record<string, string | number | boolean | null>;
}

export interface AuditPage {
  entries: AuditEntry[];
  next: string | null;
}

export interface Done {
  action: string;
  target: string;
  dry_run: boolean;
  matched: number;
  changed: number;
}

export interface JobFigures {
  id: string;
  workspace: string;
  queue: string;
  task: string | null;
  state: string;
  enqueued: string | null;
  due: string | null;
  ended: string | null;
  progress: number | null;
  message: string | null;
  errors: string[];
}

export interface JobPage {
  jobs: JobFigures[];
  next: string | null;
}

export interface SessionFigures {
  handle: string;
  workspace: string;
  user: string;
  created: string;
  last_used: string;
  ends: string;
  device: string | null;
}

export interface SessionPage {
  sessions: SessionFigures[];
}

export interface TopicFigures {
  workspace: string;
  topic: string;
  kind: "events" | "state" | "append" | "presence";
  listeners: number;
}

export interface RealtimeFigures {
  live: boolean;
  streams: number;
  parked: number;
  opened_total: number;
  lagged_total: number;
  slow_total: number;
  topics_total: number;
  topics: TopicFigures[];
}

export interface LiveToken {
  token: string;
  topic: string;
  expires: number;
}

export interface WhoAmI {
  who: string;
  role: Role;
}
