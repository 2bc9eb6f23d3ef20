import { expect, it } from "vitest";

import { sorted } from "./table";

interface Row {
  name: string;
  jobs: number;
}

const rows: Row[] = [
  { name: "mails", jobs: 2 },
  { name: "agents", jobs: 10 },
];
const columns = [
  { head: "Name", cell: (row: Row) => row.name, by: (row: Row) => row.name },
  { head: "Jobs", cell: (row: Row) => row.jobs, by: (row: Row) => row.jobs },
];

it("sorts numbers as numbers and names as names, and leaves the service's order alone", () => {
  expect(sorted(rows, columns, null)).toBe(rows);
  expect(sorted(rows, columns, { column: 1, down: true }).map((row) => row.jobs)).toEqual([10, 2]);
  expect(sorted(rows, columns, { column: 0, down: false }).map((row) => row.name)).toEqual(["agents", "mails"]);
});
