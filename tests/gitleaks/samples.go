package utils

import (
	"encoding/json"
	"os"

	"github.com/zricethezav/gitleaks/v8/config"
)

// Validate writes what a rule is tried with, one line of JSON a rule, to standard output.
func Validate(rule config.Rule, truePositives []string, falsePositives []string) *config.Rule {
	detector := createSingleRuleDetector(&rule)
	secrets := map[string][]string{}
	for _, text := range truePositives {
		for _, finding := range detector.DetectString(text) {
			secrets[text] = append(secrets[text], finding.Secret)
		}
	}
	row := map[string]any{"rule": rule.RuleID, "secrets": secrets, "harmless": falsePositives}
	_ = json.NewEncoder(os.Stdout).Encode(row)
	return validate(rule, truePositives, falsePositives)
}
