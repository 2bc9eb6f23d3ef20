import type { Viewer } from "./events.ts";

export type FieldName = "title" | "audience" | "budget" | "notes";

const LABELS = {
  title: "Title",
  audience: "Audience",
  budget: "Budget, euros a day",
  notes: "Notes",
} as const satisfies Record<FieldName, string>;

interface FieldProps {
  readonly name: FieldName;
  readonly value: string | number | undefined;
  /** Who else is editing it. */
  readonly others: readonly Viewer[];
  readonly onChange: (value: string | number) => void;
  readonly onFocus: () => void;
  readonly onBlur: () => void;
}

/** One field of the document, with the names of those who are in it. */
export function Field({ name, value, others, onChange, onFocus, onBlur }: FieldProps) {
  const first = others[0];
  const shared = { id: name, value: value ?? "", onFocus, onBlur };
  return (
    <div className={first ? "field taken" : "field"} style={first && ({ "--hue": first.hue } as React.CSSProperties)}>
      <label htmlFor={name}>{LABELS[name]}</label>
      {others.length > 0 && <span className="editing">{others.map((viewer) => viewer.name).join(", ")}</span>}
      {name === "notes" ? (
        <textarea {...shared} rows={5} onChange={(event) => onChange(event.target.value)} />
      ) : name === "budget" ? (
        <input {...shared} type="number" min={0} onChange={(event) => onChange(event.target.valueAsNumber || 0)} />
      ) : (
        <input {...shared} onChange={(event) => onChange(event.target.value)} />
      )}
    </div>
  );
}
