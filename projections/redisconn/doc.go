// Package redisconn connects to Redis: to a server of its own, a Redis Cluster, or a
// master that sentinels watch.
package redisconn
