package main

import "github.com/spf13/cobra"

func newInit(*globals) *cobra.Command { return &cobra.Command{Use: "init", Hidden: true} }
func newNew(*globals) *cobra.Command  { return &cobra.Command{Use: "new", Hidden: true} }
