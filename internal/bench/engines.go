package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"kitnet.dev/kit/internal/bench/model"
)

// engines is a model, and no measurement, of more engines than the machine has cores (package model).

// engines is the workload's name.
const engines = "engines"

// engineCounts are the numbers of engines that are modelled.
var engineCounts = []int{1, 2, 4, 8, 16}

// modelDatagrams and modelSegments are how many arrive for each engine in one run of the model, and modelSeeds how many runs, each with
// another hash that spreads the flows, have their mean taken.
const (
	modelDatagrams = 50_000
	modelSegments  = 5_000
	modelSeeds     = 2
)

func speedupKey(engines int) string { return fmt.Sprintf("speedup_%d", engines) }
func astrayKey(engines int) string  { return fmt.Sprintf("astray_%d", engines) }
func balanceKey(engines int) string { return fmt.Sprintf("balance_%d", engines) }

func enginesWorkload() workload {
	w := workload{
		name: engines, role: Engines, measure: measureEngines,
		title: "a model on one core, not a measurement: throughput of so many engines, × that of one with the same traffic",
	}
	add := func(key, title string, unit Unit) {
		w.columns = append(w.columns, Column{Key: key, Title: title, Unit: unit})
	}
	most := engineCounts[len(engineCounts)-1]
	add(speedupKey(most), fmt.Sprintf("%d engines", most), Factor)
	for _, n := range engineCounts[:len(engineCounts)-1] {
		add(speedupKey(n), fmt.Sprint(n), Factor)
	}
	for _, n := range engineCounts[1:] {
		add(astrayKey(n), fmt.Sprintf("%d, all astray", n), Factor)
	}
	add(balanceKey(most), fmt.Sprintf("balance of %d", most), Share)
	w.columns = append(w.columns, Column{Key: "model_cost_ns", Title: "cost of a packet", Unit: Nanoseconds, LowerIsBetter: true})
	return w
}

// enginesNote says what could mislead a reader of the model's table.
const enginesNote = "engines is a model: the engines of one stack run one after the other on one core, on cards in memory, and each one's " +
	"CPU time is taken; the throughput is all packets by the time of the busiest engine. It has in it how a hash spreads the " +
	"flows, 256 of 64-byte datagrams or 32 TCP connections for each engine, what engines do for each other, and the tables that " +
	"they share. It has not in it what moves between cores, the memory and caches that they share, the card, its driver and the " +
	"kernel. All astray are TCP segments that all come to another engine than their connection's, so that each is passed on; " +
	"datagrams are at home on every engine. Balance is the mean engine's load in ratio to the busiest one's."

// measureEngines runs the model in a process of its own, bound to the subject's core.
func measureEngines(ctx context.Context, r *runner, s Subject) (sample Sample, err error) {
	t := task{Subject: s.Name, Role: Engines, CPU: r.opts.SubjectCPU, Engines: engineCounts}
	if r.opts.Smoke {
		t.Engines = []int{1, 2, engineCounts[len(engineCounts)-1]}
	}
	if err := r.tell(ctx, r.lab.Right, t, &sample); err != nil {
		return nil, fmt.Errorf("bench: run the model: %w", err)
	}
	return sample, nil
}

// traffics says what a subject's model receives.
var traffics = map[string]model.Traffic{kitHandler: model.Handler, kitBatch: model.Ring, kitTCP: model.Stream}

// modelMain is the child process of the model: it writes the sample as JSON.
func modelMain(t task) error {
	traffic, ok := traffics[t.Subject]
	if !ok {
		return fmt.Errorf("bench: there is no model of %q", t.Subject)
	}
	sample := Sample{}
	for _, n := range t.Engines {
		for seed := range uint64(modelSeeds) {
			if err := addModel(sample, traffic, n, seed); err != nil {
				return err
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(sample)
}

// addModel adds one seed's part of the means.
func addModel(sample Sample, traffic model.Traffic, n int, seed uint64) error {
	c := model.Case{Traffic: traffic, Engines: 1, Load: n, Packets: modelDatagrams, Seed: seed}
	if traffic == model.Stream {
		c.Packets = modelSegments
	}
	one, err := model.Run(c)
	if err != nil {
		return err
	}
	if n == 1 {
		sample[speedupKey(n)] = 1
		sample["model_cost_ns"] += float64(one.Cost()) / modelSeeds
		return nil
	}
	c.Engines = n
	many, err := model.Run(c)
	if err != nil {
		return err
	}
	sample[speedupKey(n)] += many.PerSecond() / one.PerSecond() / modelSeeds
	sample[balanceKey(n)] += many.Balance() / modelSeeds
	if traffic != model.Stream {
		return nil
	}
	c.Astray = true
	astray, err := model.Run(c)
	if err != nil {
		return err
	}
	sample[astrayKey(n)] += astray.PerSecond() / one.PerSecond() / modelSeeds
	return nil
}
