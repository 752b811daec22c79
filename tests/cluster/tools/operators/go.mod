module voiceassistant/tests/cluster/tools/operators

go 1.26.7

require (
	github.com/cloudnative-pg/cloudnative-pg v1.30.0
	github.com/cloudnative-pg/plugin-barman-cloud v0.15.0
	istio.io/api v1.31.4
)
